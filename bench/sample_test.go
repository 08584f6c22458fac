package bench_test

import (
	"slices"
	"testing"
)

// samples are what the rounds of a benchmark measured, by unit.
type samples map[string][]float64

func (s samples) add(unit string, value float64) { s[unit] = append(s[unit], value) }

// report prints the medians in place of the time of a round, which says nothing.
func (s samples) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	for unit, values := range s {
		b.ReportMetric(median(values), unit)
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
