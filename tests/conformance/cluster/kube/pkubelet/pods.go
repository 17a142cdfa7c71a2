package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

type kubelet struct {
	ctx    context.Context
	c      *config
	cs     kubernetes.Interface
	nw     *network
	images map[string]image
	pods   cache.Store

	mu      sync.Mutex
	workers map[types.UID]*worker
	byName  map[string]*worker // namespace/name, for logs
	wg      sync.WaitGroup
}

func newKubelet(ctx context.Context, c *config, cs kubernetes.Interface, nw *network, images map[string]image) *kubelet {
	return &kubelet{ctx: ctx, c: c, cs: cs, nw: nw, images: images, workers: map[types.UID]*worker{}, byName: map[string]*worker{}}
}

// worker runs one Pod, in one goroutine from start to end.
type worker struct {
	m     *kubelet
	pod   *corev1.Pod
	stop  chan struct{} // closed when the Pod is to end
	once  sync.Once
	grace time.Duration
	net   *podNet
	dir   string

	mu    sync.Mutex
	conts []*container
	sent  string // last status that was sent
	start metav1.Time
}

type container struct {
	spec     *corev1.Container
	img      image
	log      *logBuf
	cmd      *exec.Cmd
	pid      int
	ready    bool
	running  bool
	grace    *int64 // of the probe that failed
	up       bool   // its startup probe has succeeded, or there is none
	started  metav1.Time
	restarts int32
	exit     int32
	reason   string
	message  string
}

func (m *kubelet) onPod(pod *corev1.Pod) {
	if pod.Spec.NodeName == "" {
		if m.c.schedule && pod.DeletionTimestamp == nil && len(pod.Spec.SchedulingGates) == 0 {
			go m.bind(pod)
		}
		return
	}
	if pod.Spec.NodeName != m.c.nodeName {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.workers[pod.UID]
	if pod.DeletionTimestamp != nil {
		if w != nil {
			w.end(graceOf(pod))
		} else {
			go m.forceDelete(pod)
		}
		return
	}
	if w != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return
	}
	w = &worker{m: m, pod: pod.DeepCopy(), stop: make(chan struct{}), start: metav1.Now()}
	m.workers[pod.UID] = w
	m.byName[pod.Namespace+"/"+pod.Name] = w
	m.wg.Add(1)
	go w.run()
}

func graceOf(pod *corev1.Pod) time.Duration {
	if pod.DeletionGracePeriodSeconds != nil {
		return time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	}
	return 30 * time.Second
}

func (m *kubelet) onGone(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.workers[pod.UID]; w != nil {
		w.end(0)
	}
}

func (m *kubelet) stopAll() {
	m.mu.Lock()
	for _, w := range m.workers {
		w.end(2 * time.Second)
	}
	m.mu.Unlock()
	m.wg.Wait()
}

func (m *kubelet) forceDelete(pod *corev1.Pod) {
	zero := int64(0)
	// Not m.ctx: at shutdown the Pods are left in the API on purpose.
	if m.ctx.Err() != nil {
		return
	}
	err := m.cs.CoreV1().Pods(pod.Namespace).Delete(m.ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		klog.ErrorS(err, "delete", "pod", klog.KObj(pod))
	}
}

func (w *worker) end(grace time.Duration) {
	w.once.Do(func() {
		w.grace = grace
		close(w.stop)
	})
}

func (w *worker) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// sleep waits and says whether the Pod still runs.
func (w *worker) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-w.stop:
		return false
	case <-t.C:
		return true
	}
}

func (w *worker) run() {
	m := w.m
	defer m.wg.Done()
	w.dir = filepath.Join(m.c.rootDir, string(w.pod.UID))
	defer func() {
		if w.net != nil && w.net.ns != m.c.hostNetns {
			m.nw.del(w.net)
		}
		_ = os.RemoveAll(w.dir)
		m.mu.Lock()
		delete(m.workers, w.pod.UID)
		key := w.pod.Namespace + "/" + w.pod.Name
		if m.byName[key] == w {
			delete(m.byName, key)
		}
		m.mu.Unlock()
		if w.stopped() {
			m.forceDelete(w.pod)
		}
	}()

	for i := range w.pod.Spec.Containers {
		c := &w.pod.Spec.Containers[i]
		img, ok := m.images[imageName(c.Image)]
		ct := &container{spec: c, img: img, log: newLogBuf(), reason: "ContainerCreating"}
		if !ok {
			ct.reason = "ErrImageNeverPull"
			ct.message = "no binary is mapped to image " + c.Image
		}
		w.mu.Lock()
		w.conts = append(w.conts, ct)
		w.mu.Unlock()
		if !ok {
			w.sync()
			<-w.stop
			return
		}
	}
	var err error
	for {
		if w.pod.Spec.HostNetwork {
			w.net = &podNet{ns: m.c.hostNetns, ip: m.c.hostIP}
		} else if w.net == nil {
			w.net, err = m.nw.add(string(w.pod.UID))
		}
		if err == nil {
			err = w.prepare()
		}
		if err == nil {
			break
		}
		// A Secret or ConfigMap may not be there yet, as for a real kubelet.
		w.conts[0].message = err.Error()
		w.sync()
		klog.V(2).InfoS("pod waits", "pod", klog.KObj(w.pod), "err", err)
		if !w.sleep(200 * time.Millisecond) {
			return
		}
		err = nil
	}
	var wg sync.WaitGroup
	for _, ct := range w.conts {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w.runContainer(ct)
		}()
	}
	wg.Wait()
	if !w.stopped() {
		w.sync() // Succeeded or Failed
		<-w.stop
	}
}

// runContainer starts the process again and again until the Pod ends or the
// restart policy says enough.
func (w *worker) runContainer(ct *container) {
	backoff := time.Second
	for {
		began := time.Now()
		code, err := w.runOnce(ct)
		w.mu.Lock()
		ct.running, ct.ready, ct.up, ct.exit = false, false, false, code
		ct.reason, ct.message = "", ""
		if err != nil {
			ct.message = err.Error()
			ct.reason = "RunContainerError"
		}
		w.mu.Unlock()
		if w.stopped() {
			return
		}
		switch w.pod.Spec.RestartPolicy {
		case corev1.RestartPolicyNever:
			ct.reason = "Completed"
			return
		case corev1.RestartPolicyOnFailure:
			if code == 0 {
				ct.reason = "Completed"
				return
			}
		}
		if time.Since(began) > 10*time.Second {
			backoff = time.Second
		}
		w.mu.Lock()
		ct.restarts++
		ct.reason = "CrashLoopBackOff"
		w.mu.Unlock()
		klog.InfoS("container ended", "pod", klog.KObj(w.pod), "container", ct.spec.Name, "code", code, "err", err)
		w.sync()
		if !w.sleep(backoff) {
			return
		}
		backoff = min(backoff*2, 10*time.Second)
	}
}

func (w *worker) runOnce(ct *container) (int32, error) {
	if w.stopped() {
		return 0, nil
	}
	env, lookup, err := w.env(ct.spec)
	if err != nil {
		return 128, err
	}
	var args []string
	if len(ct.spec.Command) > 1 {
		args = append(args, ct.spec.Command[1:]...) // command[0] is the mapped binary
	}
	args = append(args, ct.spec.Args...)
	for i := range args {
		args[i] = expand(args[i], lookup)
	}
	root := filepath.Join(w.dir, "root")
	bin := "/" + filepath.Base(ct.img.path)
	cmd := &exec.Cmd{Path: bin, Args: append([]string{bin}, args...), Env: env, Dir: "/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	limits, err := confinement(&w.pod.Spec, ct.spec)
	if err != nil {
		return 128, err
	}
	if ct.img.hostRoot || limits != nil {
		spec := initSpec{Root: root, Host: ct.img.hostRoot, Writable: w.writable(ct.spec), Confine: limits}
		if spec.Volumes, err = w.hostPaths(ct.spec); err != nil {
			return 128, err
		}
		told, err := json.Marshal(spec)
		if err != nil {
			return 128, err
		}
		if ct.img.hostRoot {
			bin = ct.img.path
		}
		cmd.Path = "/proc/self/exe"
		cmd.Args = append([]string{"pkubelet", "-init", string(told), bin}, args...)
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
		if limits != nil {
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
		}
	} else {
		cmd.SysProcAttr.Chroot = root
	}
	cmd.Stdout = ct.log.writer("stdout")
	cmd.Stderr = ct.log.writer("stderr")
	cmd.WaitDelay = time.Second
	if err := startIn(w.net.ns, cmd); err != nil {
		return 128, err
	}
	w.mu.Lock()
	ct.cmd, ct.pid, ct.running, ct.started = cmd, cmd.Process.Pid, true, metav1.Now()
	ct.up = ct.spec.StartupProbe == nil
	w.mu.Unlock()
	w.sync()

	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	gone := make(chan struct{})
	unwell := make(chan string, 1)
	go w.watchHealth(ct, gone, unwell)
	defer close(gone)
	end := func(grace time.Duration) {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		t := time.NewTimer(grace)
		select {
		case err = <-done:
		case <-t.C:
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			err = <-done
		}
		t.Stop()
	}
	select {
	case err = <-done:
	case why := <-unwell:
		klog.InfoS("container is restarted", "pod", klog.KObj(w.pod), "container", ct.spec.Name, "why", why)
		grace := int64(30)
		if s := w.pod.Spec.TerminationGracePeriodSeconds; s != nil {
			grace = *s
		}
		if ct.grace != nil {
			grace = *ct.grace
		}
		end(time.Duration(grace) * time.Second)
	case <-w.stop:
		end(w.grace)
	}
	var xe *exec.ExitError
	if errors.As(err, &xe) {
		return int32(xe.ExitCode()), nil
	}
	return 0, nil
}
