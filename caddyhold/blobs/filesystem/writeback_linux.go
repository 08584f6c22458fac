package filesystem

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback starts to write a range of a file to disk. A file system that
// cannot do that writes when it is synced.
func startWriteback(file *os.File, offset, size int64) {
	_ = unix.SyncFileRange(int(file.Fd()), offset, size, unix.SYNC_FILE_RANGE_WRITE)
}
