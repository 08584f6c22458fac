package peer

import (
	"fmt"
	"os"
	"syscall"
)

// lock takes an exclusive lock on a file, across processes: go test runs several packages at once, which may want the same
// program. The kernel lets go of it when a process dies.
func lock(name string) (unlock func(), err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	return func() { file.Close() }, nil
}
