//go:build race

package e2e_test

// raceDetector says that these tests run under the race detector; the hold then does, too.
const raceDetector = true
