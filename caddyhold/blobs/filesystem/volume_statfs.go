//go:build linux || darwin || freebsd

package filesystem

import (
	"os"

	"golang.org/x/sys/unix"
)

// volume returns the bytes of the root's volume that are free for us, and all.
func volume(root *os.Root) (free, capacity uint64, err error) {
	dir, err := root.Open(".")
	if err != nil {
		return 0, 0, err
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return 0, 0, os.NewSyscallError("fstatfs", err)
	}
	//nolint:unconvert // signed on FreeBSD
	return uint64(st.Bavail) * uint64(st.Bsize), uint64(st.Blocks) * uint64(st.Bsize), nil
}
