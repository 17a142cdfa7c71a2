package main

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// confine is what a security context comes to for one process.
type confine struct {
	UID    int   `json:"uid"`
	GID    int   `json:"gid"`
	Groups []int `json:"groups,omitempty"`
	// Caps is the bounding, permitted and effective set, as bits. The ambient
	// set stays empty, as Kubernetes leaves it: a process of another user than
	// 0 has the capabilities of its file or none.
	Caps         uint64 `json:"caps"`
	NoNewPrivs   bool   `json:"noNewPrivs"`
	ReadOnlyRoot bool   `json:"readOnlyRoot"`
}

// capabilities by number, as in linux/capability.h.
var capabilities = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
	SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
	AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
	CHECKPOINT_RESTORE`)

// What containerd and Docker give a container that says nothing.
const capsDefault = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"

func capBit(name string) (uint64, error) {
	name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
	if name == "ALL" {
		return 1<<len(capabilities) - 1, nil
	}
	for i, c := range capabilities {
		if c == name {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("there is no capability %s", name)
}

// confinement reads the security contexts of a container and its Pod; nil
// where neither says anything. seccompProfile is not applied.
func confinement(pod *corev1.PodSpec, c *corev1.Container) (*confine, error) {
	ps, cs := pod.SecurityContext, c.SecurityContext
	if ps == nil {
		ps = &corev1.PodSecurityContext{}
	}
	if cs == nil {
		if ps.RunAsUser == nil && ps.RunAsGroup == nil && ps.RunAsNonRoot == nil {
			return nil, nil
		}
		cs = &corev1.SecurityContext{}
	}
	out := &confine{}
	pick := func(a, b *int64) int {
		if a != nil {
			return int(*a)
		}
		if b != nil {
			return int(*b)
		}
		return 0
	}
	yes := func(b *bool) bool { return b != nil && *b }
	out.UID, out.GID = pick(cs.RunAsUser, ps.RunAsUser), pick(cs.RunAsGroup, ps.RunAsGroup)
	if ps.FSGroup != nil {
		out.Groups = append(out.Groups, int(*ps.FSGroup))
	}
	for _, g := range ps.SupplementalGroups {
		out.Groups = append(out.Groups, int(g))
	}
	nonRoot := cs.RunAsNonRoot
	if nonRoot == nil {
		nonRoot = ps.RunAsNonRoot
	}
	if yes(nonRoot) && out.UID == 0 {
		return nil, fmt.Errorf("runAsNonRoot is set, and user 0 is what the container would run as")
	}
	for _, name := range strings.Fields(capsDefault) {
		b, err := capBit(name)
		if err != nil {
			return nil, err
		}
		out.Caps |= b
	}
	if cs.Capabilities != nil {
		// Names one by one count more than ALL, as in a runtime.
		for _, all := range []bool{true, false} {
			for _, l := range []struct {
				names []corev1.Capability
				add   bool
			}{{cs.Capabilities.Add, true}, {cs.Capabilities.Drop, false}} {
				for _, n := range l.names {
					if strings.EqualFold(string(n), "ALL") != all {
						continue
					}
					b, err := capBit(string(n))
					if err != nil {
						return nil, err
					}
					if l.add {
						out.Caps |= b
					} else {
						out.Caps &^= b
					}
				}
			}
		}
	}
	if yes(cs.Privileged) {
		out.Caps, _ = capBit("ALL")
	}
	out.NoNewPrivs = cs.AllowPrivilegeEscalation != nil && !*cs.AllowPrivilegeEscalation
	out.ReadOnlyRoot = yes(cs.ReadOnlyRootFilesystem)
	return out, nil
}

// apply turns the calling thread into what is asked for, in the order in which
// each step still has the privilege it needs.
func (c *confine) apply() error {
	for i := range capabilities {
		if c.Caps&(1<<i) == 0 {
			// EINVAL: this kernel has fewer capabilities.
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(i), 0, 0, 0); err != nil && err != unix.EINVAL {
				return fmt.Errorf("drop %s: %w", capabilities[i], err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	groups := make([]uint32, len(c.Groups)+1)
	groups[0] = uint32(c.GID)
	for i, g := range c.Groups {
		groups[i+1] = uint32(g)
	}
	if err := setCredentials(groups, c.GID, c.UID); err != nil {
		return err
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		bits := uint32(c.Caps >> (32 * i))
		data[i] = unix.CapUserData{Effective: bits, Permitted: bits}
	}
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if c.NoNewPrivs {
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	return nil
}
