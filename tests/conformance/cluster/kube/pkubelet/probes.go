package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// watchHealth asks the startup probe until it succeeds, then the liveness and
// the readiness probe, and says when the container is to be restarted.
func (w *worker) watchHealth(ct *container, gone <-chan struct{}, unwell chan<- string) {
	if p := ct.spec.StartupProbe; p != nil {
		if !w.ask(ct, p, gone, true) {
			ct.grace = p.TerminationGracePeriodSeconds
			unwell <- "its startup probe failed"
			return
		}
		w.mu.Lock()
		ct.up = true
		w.mu.Unlock()
		w.sync()
	}
	if p := ct.spec.LivenessProbe; p != nil {
		go func() {
			if !w.ask(ct, p, gone, false) {
				ct.grace = p.TerminationGracePeriodSeconds
				unwell <- "its liveness probe failed"
			}
		}()
	}
	w.watchReady(ct, gone)
}

// ask asks a probe, until the first success or for ever; false when it failed
// too often in a row. The end of the container or the Pod is no failure.
func (w *worker) ask(ct *container, p *corev1.Probe, gone <-chan struct{}, once bool) bool {
	every := time.Duration(max(p.PeriodSeconds, 1)) * time.Second
	if p.PeriodSeconds == 0 {
		every = 10 * time.Second
	}
	wait := time.Duration(p.InitialDelaySeconds) * time.Second
	if once {
		// A process is up sooner than a period: asked more often at first.
		every = min(every, 200*time.Millisecond)
	}
	most := p.FailureThreshold
	if most == 0 {
		most = 3
	}
	began := time.Now()
	for fails := int32(0); ; {
		select {
		case <-gone:
			return true
		case <-w.stop:
			return true
		case <-time.After(wait):
		}
		wait = every
		if w.probe(ct, p) {
			if once {
				return true
			}
			fails = 0
			continue
		}
		fails++
		if once {
			// As long as it would take at the rate that was asked for.
			limit := time.Duration(most) * time.Duration(max(p.PeriodSeconds, 1)) * time.Second
			if time.Since(began) < limit {
				continue
			}
			return false
		}
		if fails >= most {
			return false
		}
	}
}

// watchReady turns the container Ready when its readiness probe succeeds; one
// without a probe is Ready when the process holds a listening socket.
func (w *worker) watchReady(ct *container, gone <-chan struct{}) {
	probe := ct.spec.ReadinessProbe
	every := 20 * time.Millisecond
	fails := int32(0)
	began := time.Now()
	for {
		select {
		case <-gone:
			return
		case <-w.stop:
			return
		case <-time.After(every):
		}
		ok := false
		if probe == nil {
			// Something that listens on nothing is Ready after a while.
			ok = listens(ct.pid) || time.Since(began) > 3*time.Second
			if ok {
				time.Sleep(30 * time.Millisecond) // its other ports
			}
		} else {
			ok = w.probe(ct, probe)
			every = 200 * time.Millisecond
		}
		w.mu.Lock()
		was := ct.ready
		if ok {
			fails = 0
			ct.ready = true
		} else if fails++; fails >= 3 || (probe != nil && fails >= max(probe.FailureThreshold, 1)) {
			ct.ready = false
		}
		changed := was != ct.ready
		w.mu.Unlock()
		if changed {
			w.sync()
		}
		if probe == nil && ok {
			return
		}
		if probe != nil && ok && probe.PeriodSeconds > 0 {
			every = time.Duration(probe.PeriodSeconds) * time.Second
		}
	}
}

// listens says whether the network namespace of the process has a listening
// TCP socket or a bound UDP socket.
func listens(pid int) bool {
	for _, f := range []struct{ name, state string }{{"tcp", "0A"}, {"tcp6", "0A"}, {"udp", "07"}, {"udp6", "07"}} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, f.name))
		if err != nil {
			return false
		}
		for i, l := range strings.Split(string(b), "\n") {
			if i > 0 {
				if c := strings.Fields(l); len(c) > 3 && c[3] == f.state {
					return true
				}
			}
		}
	}
	return false
}

func (w *worker) probe(ct *container, p *corev1.Probe) bool {
	timeout := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
	port := func(v intstr.IntOrString) string {
		if v.Type == intstr.String {
			for _, cp := range ct.spec.Ports {
				if cp.Name == v.StrVal {
					return fmt.Sprint(cp.ContainerPort)
				}
			}
		}
		return v.String()
	}
	dial := func(ctx context.Context, _, addr string) (conn net.Conn, err error) {
		// A hostNetwork Pod may listen on loopback only, so dial from inside.
		err = inNetns(w.net.ns, func() error {
			var d net.Dialer
			c, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			conn, err = d.DialContext(c, "tcp", addr)
			return err
		})
		return conn, err
	}
	switch {
	case p.HTTPGet != nil:
		host := p.HTTPGet.Host
		if host == "" {
			host = w.net.ip
		}
		tr := &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSClientConfig: insecureTLS()}
		hc := &http.Client{Transport: tr, Timeout: timeout}
		u := strings.ToLower(string(p.HTTPGet.Scheme))
		if u == "" {
			u = "http"
		}
		rsp, err := hc.Get(fmt.Sprintf("%s://%s%s", u, net.JoinHostPort(host, port(p.HTTPGet.Port)), p.HTTPGet.Path))
		if err != nil {
			return false
		}
		rsp.Body.Close()
		return rsp.StatusCode >= 200 && rsp.StatusCode < 400
	case p.TCPSocket != nil:
		conn, err := dial(w.m.ctx, "tcp", net.JoinHostPort(w.net.ip, port(p.TCPSocket.Port)))
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
	return true // exec and gRPC probes are not done
}
