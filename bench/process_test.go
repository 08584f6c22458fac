package bench_test

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// clockTick is the unit in which Linux tells processor time.
const clockTick = 10 * time.Millisecond

// processorTime is what a process has used so far, in user and in kernel mode.
func processorTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatalf("reading processor time: %v", err)
	}
	// The fields after the program's name, which is in parentheses: utime and stime are 14 and 15 of proc(5), counted from 1.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			b.Fatalf("reading processor time: %v", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick
}

// resident is the memory of a process in MB: what it has now (VmRSS) and the most it ever had (VmHWM), both with the pages
// of its program and of files that it maps.
func resident(b *testing.B, pid int) (now, most float64) {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatalf("reading memory: %v", err)
	}
	kilobytes := func(name string) float64 {
		_, after, _ := bytes.Cut(status, []byte("\n"+name+":"))
		fields := bytes.Fields(after)
		if len(fields) == 0 {
			b.Fatalf("reading memory: no %s", name)
		}
		n, err := strconv.ParseFloat(string(fields[0]), 64)
		if err != nil {
			b.Fatalf("reading memory: %v", err)
		}
		return n * 1024 / 1e6
	}
	return kilobytes("VmRSS"), kilobytes("VmHWM")
}
