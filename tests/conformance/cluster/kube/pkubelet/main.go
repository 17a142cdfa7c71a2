// pkubelet is a kubelet that runs native processes instead of containers.
//
// It registers one Node, binds every unscheduled Pod to it (so no scheduler is
// needed), gives each Pod its own network namespace with an address on a
// bridge, and starts for each container the local binary that is mapped to the
// image's repository name. It also serves the kubelet's /containerLogs.
//
// It is a test tool. What it does not do: init containers, ephemeral
// containers, exec, attach, port-forward, resource limits, seccomp profiles,
// volumes other than emptyDir, secret, configMap, downwardAPI, projected and
// hostPath.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

type config struct {
	kubeconfig string
	nodeName   string
	nodeIP     string
	podCIDR    string
	bridge     string
	routes     string
	images     string
	rootDir    string
	port       int
	certFile   string
	keyFile    string
	clientCA   string
	apiHost    string
	apiPort    string
	hostNetns  string
	schedule   bool
	hostIP     string
	prefix     int
	hostRoot   string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "-init" {
		fmt.Fprintln(os.Stderr, "pkubelet:", initMain(os.Args[2:]))
		os.Exit(127)
	}
	var c config
	flag.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file")
	flag.StringVar(&c.nodeName, "node-name", "rig", "name of the Node")
	flag.StringVar(&c.nodeIP, "node-ip", "10.244.0.1", "address of the bridge and InternalIP of the Node")
	flag.StringVar(&c.podCIDR, "pod-cidr", "10.244.0.0/24", "addresses for Pods")
	flag.StringVar(&c.bridge, "bridge", "rigbr0", "bridge device, created when missing")
	flag.StringVar(&c.routes, "pod-routes", "", "comma list of further networks that Pods reach through the node address; no default route is set, so nothing leaves the machine")
	flag.StringVar(&c.images, "images", "", "comma list of NAME=BINARY; NAME is the last part of the image repository; a + before BINARY makes the programs and libraries of the host visible to it (for binaries that are not static)")
	flag.StringVar(&c.rootDir, "root-dir", "", "folder for pod roots and logs")
	flag.IntVar(&c.port, "port", 10250, "port of the kubelet API")
	flag.StringVar(&c.certFile, "tls-cert-file", "", "serving certificate of the kubelet API")
	flag.StringVar(&c.keyFile, "tls-private-key-file", "", "its key")
	flag.StringVar(&c.clientCA, "client-ca-file", "", "CA for client certificates of the kubelet API")
	flag.StringVar(&c.apiHost, "pod-api-host", "10.244.0.1", "KUBERNETES_SERVICE_HOST for Pods")
	flag.StringVar(&c.apiPort, "pod-api-port", "6443", "KUBERNETES_SERVICE_PORT for Pods")
	flag.StringVar(&c.hostNetns, "host-netns", "", "network namespace for hostNetwork Pods; empty: that of pkubelet")
	flag.StringVar(&c.hostIP, "host-ip", "", "address of that namespace; empty: -node-ip")
	flag.IntVar(&c.prefix, "prefix", 16, "prefix length of the network on the bridge; the pod CIDR is a part of it")
	flag.StringVar(&c.hostRoot, "host-root", "", "folder that hostPath volumes lie in, but those of /sys, /proc and /dev")
	flag.BoolVar(&c.schedule, "schedule", true, "bind unscheduled Pods to this Node")
	klog.InitFlags(nil)
	flag.Parse()
	if c.hostIP == "" {
		c.hostIP = c.nodeIP
	}
	if err := run(&c); err != nil {
		fmt.Fprintln(os.Stderr, "pkubelet:", err)
		os.Exit(1)
	}
}

func run(c *config) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	rc, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return err
	}
	rc.QPS, rc.Burst = 500, 1000
	rc.UserAgent = "pkubelet"
	cs, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return err
	}
	if c.rootDir, err = filepath.Abs(c.rootDir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.rootDir, 0o755); err != nil {
		return err
	}
	nw, err := newNetwork(c)
	if err != nil {
		return err
	}
	defer nw.close()
	images, err := parseImages(c.images)
	if err != nil {
		return err
	}
	m := newKubelet(ctx, c, cs, nw, images)
	srv, err := m.serve()
	if err != nil {
		return err
	}
	defer srv.Close()
	if err := registerNode(ctx, c, cs); err != nil {
		return fmt.Errorf("register node: %w", err)
	}

	// After a restart no new Pod may get the address of an older one.
	old, err := cs.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + c.nodeName})
	if err != nil {
		return err
	}
	for i := range old.Items {
		if p := &old.Items[i]; !p.Spec.HostNetwork && p.DeletionTimestamp == nil {
			nw.keep(string(p.UID), p.Status.PodIP)
		}
	}

	f := informers.NewSharedInformerFactory(cs, 0)
	inf := f.Core().V1().Pods().Informer()
	m.pods = inf.GetStore()
	_, err = inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { m.onPod(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { m.onPod(o.(*corev1.Pod)) },
		DeleteFunc: func(o any) {
			if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = d.Obj
			}
			if p, ok := o.(*corev1.Pod); ok {
				m.onGone(p)
			}
		},
	})
	if err != nil {
		return err
	}
	f.Start(ctx.Done())
	klog.InfoS("pkubelet runs", "node", c.nodeName, "address", c.nodeIP)
	<-ctx.Done()
	m.stopAll()
	return nil
}

func parseImages(s string) (map[string]image, error) {
	out := map[string]image{}
	for _, kv := range strings.Split(s, ",") {
		if kv == "" {
			continue
		}
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, fmt.Errorf("bad image mapping %q", kv)
		}
		im := image{path: v}
		if strings.HasPrefix(v, "+") {
			im = image{path: v[1:], hostRoot: true}
		}
		if _, err := os.Stat(im.path); err != nil {
			return nil, err
		}
		out[k] = im
	}
	return out, nil
}

type image struct {
	path     string
	hostRoot bool
}

// imageName gives the last part of the repository name, without tag and digest.
func imageName(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	ref = ref[strings.LastIndex(ref, "/")+1:]
	name, _, _ := strings.Cut(ref, ":")
	return name
}

func registerNode(ctx context.Context, c *config, cs kubernetes.Interface) error {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: c.nodeName,
			Labels: map[string]string{
				corev1.LabelHostname:   c.nodeName,
				corev1.LabelOSStable:   "linux",
				corev1.LabelArchStable: "amd64",
			},
		},
		Spec: corev1.NodeSpec{PodCIDR: c.podCIDR, PodCIDRs: []string{c.podCIDR}},
	}
	nodes := cs.CoreV1().Nodes()
	got, err := nodes.Create(ctx, node, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		got, err = nodes.Get(ctx, c.nodeName, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	if len(got.Spec.Taints) > 0 {
		// Admission adds a not-ready taint, which the node lifecycle
		// controller (not run here) would take away.
		got.Spec.Taints = nil
		if got, err = nodes.Update(ctx, got, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	now := metav1.Now()
	cond := func(t corev1.NodeConditionType, s corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: t, Status: s, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	res := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("64"),
		corev1.ResourceMemory: resource.MustParse("64Gi"),
		corev1.ResourcePods:   resource.MustParse("250"),
	}
	got.Status = corev1.NodeStatus{
		Capacity:    res,
		Allocatable: res,
		Conditions: []corev1.NodeCondition{
			cond(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"),
			cond(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"),
			cond(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"),
			cond(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID"),
		},
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: c.nodeIP},
			{Type: corev1.NodeHostName, Address: c.nodeName},
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(c.port)}},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion: "v1.36.3-pkubelet", OperatingSystem: "linux", Architecture: "amd64",
			ContainerRuntimeVersion: "process://1",
		},
	}
	_, err = nodes.UpdateStatus(ctx, got, metav1.UpdateOptions{})
	return err
}

func (m *kubelet) bind(pod *corev1.Pod) {
	b := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: m.c.nodeName},
	}
	err := m.cs.CoreV1().Pods(pod.Namespace).Bind(m.ctx, b, metav1.CreateOptions{})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		klog.ErrorS(err, "bind", "pod", klog.KObj(pod))
	}
}

func (m *kubelet) patchStatus(pod *corev1.Pod, st corev1.PodStatus) {
	body := statusPatch(pod.UID, st)
	for i := 0; i < 5; i++ {
		_, err := m.cs.CoreV1().Pods(pod.Namespace).Patch(m.ctx, pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || m.ctx.Err() != nil {
			return
		}
		klog.ErrorS(err, "patch status", "pod", klog.KObj(pod))
		time.Sleep(200 * time.Millisecond)
	}
}

func ipCmd(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func parseCIDR(s string) (*net.IPNet, error) {
	_, n, err := net.ParseCIDR(s)
	return n, err
}
