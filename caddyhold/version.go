package caddyhold

import "runtime/debug"

// modulePath is this Go module's.
const modulePath = "github.com/caddyhold/caddyhold"

// version is the version of this module in the running program, "(devel)" where it was built
// from a working copy.
func version() string {
	const working = "(devel)"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return working
	}
	for _, dep := range info.Deps {
		if dep.Path == modulePath && dep.Replace == nil {
			return dep.Version
		}
	}
	if info.Main.Path == modulePath && info.Main.Version != "" {
		return info.Main.Version
	}
	return working
}
