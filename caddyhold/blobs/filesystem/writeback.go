package filesystem

import "os"

// writebackInterval is how much is written before the system is told to start.
const writebackInterval = 8 << 20

// writeback has the system write to disk while the rest still comes in, so that
// syncing finds little left to do. It promises nothing.
type writeback struct {
	file *os.File
	from int64 // up to here it was told
}

// wrote notes that the file was written up to end.
func (w *writeback) wrote(end int64) {
	if end-w.from >= writebackInterval {
		startWriteback(w.file, w.from, end-w.from)
		w.from = end
	}
}
