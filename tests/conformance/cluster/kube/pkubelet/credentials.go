package main

import (
	"fmt"
	"syscall"
	"unsafe"
)

// setCredentials is for this thread alone: the wrappers of package syscall ask
// every thread of the process, and those would keep capabilities that this one
// has given up.
func setCredentials(groups []uint32, gid, uid int) error {
	for _, step := range []struct {
		name    string
		nr      uintptr
		a, b, c uintptr
	}{
		{"setgroups", syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0},
		{"setresgid", syscall.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
		{"setresuid", syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
	} {
		if _, _, e := syscall.RawSyscall(step.nr, step.a, step.b, step.c); e != 0 {
			return fmt.Errorf("%s: %w", step.name, e)
		}
	}
	return nil
}
