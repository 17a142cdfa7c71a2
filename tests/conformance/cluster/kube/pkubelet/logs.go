package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const maxLines = 200_000

// logBuf holds the lines of one container with the time each was read.
type logBuf struct {
	mu    sync.Mutex
	lines []logLine
	first int // number of lines that were dropped
	grown chan struct{}
}

type logLine struct {
	t    time.Time
	text []byte
}

func newLogBuf() *logBuf { return &logBuf{grown: make(chan struct{})} }

func (l *logBuf) writer(string) io.Writer { return &lineWriter{l: l} }

type lineWriter struct {
	l    *logBuf
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	now := time.Now()
	w.rest = append(w.rest, p...)
	var add []logLine
	for {
		i := bytes.IndexByte(w.rest, '\n')
		if i < 0 {
			break
		}
		add = append(add, logLine{now, append([]byte(nil), w.rest[:i+1]...)})
		w.rest = w.rest[i+1:]
	}
	if len(add) > 0 {
		l := w.l
		l.mu.Lock()
		l.lines = append(l.lines, add...)
		if n := len(l.lines) - maxLines; n > maxLines/4 {
			l.lines = append([]logLine(nil), l.lines[n:]...)
			l.first += n
		}
		close(l.grown)
		l.grown = make(chan struct{})
		l.mu.Unlock()
	}
	return len(p), nil
}

// from returns the lines from number n on, the next number and a channel that
// is closed when there are more.
func (l *logBuf) from(n int) ([]logLine, int, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = max(n, l.first)
	return l.lines[n-l.first:], l.first + len(l.lines), l.grown
}

func insecureTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} } // probes, as a kubelet does

func (m *kubelet) serve() (*http.Server, error) {
	cert, err := tls.LoadX509KeyPair(m.c.certFile, m.c.keyFile)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(m.c.clientCA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("no certificate in %s", m.c.clientCA)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{ns}/{pod}/{container}", m.containerLogs)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	srv := &http.Server{
		Handler: mux,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{cert}, ClientCAs: pool,
			ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
		},
		ReadHeaderTimeout: 10 * time.Second,
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(m.c.nodeIP, strconv.Itoa(m.c.port)))
	if err != nil {
		return nil, err
	}
	go func() {
		if err := srv.ServeTLS(ln, "", ""); err != http.ErrServerClosed {
			klog.ErrorS(err, "kubelet API")
		}
	}()
	return srv, nil
}

// containerLogs takes the query of the apiserver (PodLogOptions).
func (m *kubelet) containerLogs(rw http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	w := m.byName[r.PathValue("ns")+"/"+r.PathValue("pod")]
	m.mu.Unlock()
	var buf *logBuf
	if w != nil {
		w.mu.Lock()
		for _, ct := range w.conts {
			if ct.spec.Name == r.PathValue("container") {
				buf = ct.log
			}
		}
		w.mu.Unlock()
	}
	if buf == nil {
		http.Error(rw, "no such container", http.StatusNotFound)
		return
	}
	q := r.URL.Query()
	var since time.Time
	if s := q.Get("sinceTime"); s != "" {
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		since = t
	}
	num := func(k string) int64 {
		n, err := strconv.ParseInt(q.Get(k), 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	if s := num("sinceSeconds"); s > 0 {
		since = time.Now().Add(-time.Duration(s) * time.Second)
	}
	stamps, _ := strconv.ParseBool(q.Get("timestamps"))
	follow, _ := strconv.ParseBool(q.Get("follow"))
	limit := num("limitBytes")

	lines, next, grown := buf.from(0)
	for len(lines) > 0 && lines[0].t.Before(since) {
		lines = lines[1:]
	}
	if tail := num("tailLines"); tail >= 0 && int64(len(lines)) > tail {
		lines = lines[int64(len(lines))-tail:]
	}
	rw.Header().Set("Content-Type", "text/plain")
	fl, _ := rw.(http.Flusher)
	for {
		for _, l := range lines {
			b := l.text
			if stamps {
				b = []byte(l.t.UTC().Format(time.RFC3339Nano) + " " + string(l.text))
			}
			if limit >= 0 {
				b = b[:min(int64(len(b)), limit)]
				limit -= int64(len(b))
			}
			if _, err := rw.Write(b); err != nil || limit == 0 {
				return
			}
		}
		if !follow {
			return
		}
		fl.Flush()
		if !waitGrown(r.Context(), w, grown) {
			return
		}
		lines, next, grown = buf.from(next)
	}
}

func waitGrown(ctx context.Context, w *worker, grown <-chan struct{}) bool {
	select {
	case <-grown:
		return true
	case <-ctx.Done():
	case <-w.stop:
	}
	return false
}
