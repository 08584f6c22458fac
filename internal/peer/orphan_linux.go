package peer

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel end the process when the test binary dies without its cleanups, as it does at a panic or a
// timeout.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
