package main

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// sync sends the status of the Pod when it changed.
func (w *worker) sync() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m.ctx.Err() != nil || w.stopped() {
		return
	}
	st := w.status()
	b, _ := json.Marshal(st)
	if string(b) == w.sent {
		return
	}
	w.sent = string(b)
	w.m.patchStatus(w.pod, st)
}

func (w *worker) status() corev1.PodStatus {
	st := corev1.PodStatus{
		ObservedGeneration: w.pod.Generation,
		HostIP:             w.m.c.nodeIP,
		HostIPs:            []corev1.HostIP{{IP: w.m.c.nodeIP}},
		StartTime:          &w.start,
		QOSClass:           w.pod.Status.QOSClass,
	}
	if w.net != nil {
		st.PodIP = w.net.ip
		st.PodIPs = []corev1.PodIP{{IP: w.net.ip}}
	}
	ready, running, failed := true, 0, 0
	for _, ct := range w.conts {
		cs := corev1.ContainerStatus{
			Name: ct.spec.Name, Image: ct.spec.Image, ImageID: "process://" + ct.img.path,
			ContainerID: fmt.Sprintf("process://%d", ct.pid), Ready: ct.ready, Started: &ct.up, RestartCount: ct.restarts,
		}
		switch {
		case ct.running:
			running++
			cs.State.Running = &corev1.ContainerStateRunning{StartedAt: ct.started}
		case ct.reason == "Completed":
			if ct.exit != 0 {
				failed++
			}
			cs.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: ct.exit, Reason: ct.reason, StartedAt: ct.started}
		default:
			running++ // not finished
			cs.State.Waiting = &corev1.ContainerStateWaiting{Reason: ct.reason, Message: ct.message}
			if ct.restarts > 0 {
				cs.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: ct.exit, StartedAt: ct.started}
			}
		}
		ready = ready && ct.ready
		st.ContainerStatuses = append(st.ContainerStatuses, cs)
	}
	anyStarted := false
	for _, ct := range w.conts {
		anyStarted = anyStarted || ct.pid != 0
	}
	switch {
	case running == 0 && failed > 0:
		st.Phase = corev1.PodFailed
	case running == 0:
		st.Phase = corev1.PodSucceeded
	case anyStarted:
		st.Phase = corev1.PodRunning
	default:
		st.Phase = corev1.PodPending
	}
	cond := func(t corev1.PodConditionType, ok bool) {
		s := corev1.ConditionFalse
		if ok {
			s = corev1.ConditionTrue
		}
		st.Conditions = append(st.Conditions, corev1.PodCondition{Type: t, Status: s, LastTransitionTime: w.start, ObservedGeneration: w.pod.Generation})
	}
	cond(corev1.PodReadyToStartContainers, w.net != nil)
	cond(corev1.PodInitialized, true)
	cond(corev1.ContainersReady, ready)
	cond(corev1.PodReady, ready)
	return st
}

// statusPatch replaces the address lists, which a strategic merge would join.
func statusPatch(uid types.UID, st corev1.PodStatus) []byte {
	b, _ := json.Marshal(st)
	m := map[string]any{}
	_ = json.Unmarshal(b, &m)
	for _, k := range []string{"podIPs", "hostIPs"} {
		if l, ok := m[k].([]any); ok {
			m[k] = append(l, map[string]any{"$patch": "replace"})
		}
	}
	b, _ = json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid}, "status": m})
	return b
}
