package caddyhold

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddyhold/caddyhold/caddyhold/blobs"
	"github.com/caddyhold/caddyhold/caddyhold/pds"
)

// metrics are one hold's, named caddy_atcr_hold_*, with the hold's DID as a label. They
// outlive configurations, and are registered with each one's registry.
type metrics struct {
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	inFlight  prometheus.Gauge
	consumers prometheus.GaugeFunc
	usage     []prometheus.Collector

	storage atomic.Pointer[blobs.Service] // of the configuration that counts
}

func newMetrics(repo *pds.Repo) *metrics {
	const namespace, subsystem = "caddy", "atcr_hold"
	labels := prometheus.Labels{"hold": repo.DID().String()}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, ConstLabels: labels,
			Name: "requests_total",
			Help: "Requests answered, by XRPC method and class of status.",
		}, []string{"nsid", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, ConstLabels: labels,
			Name:    "request_duration_seconds",
			Help:    "Time from a request to the end of its answer, by XRPC method.",
			Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60, 300},
		}, []string{"nsid"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, ConstLabels: labels,
			Name: "requests_in_flight",
			Help: "Requests being answered now, WebSockets included.",
		}),
		consumers: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, ConstLabels: labels,
			Name: "firehose_consumers",
			Help: "WebSockets that follow the repository now.",
		}, func() float64 { return float64(repo.Consumers()) }),
	}
	for _, g := range []struct {
		name, help string
		of         func(blobs.Usage) int64
	}{
		{"blobs", "Blobs in the storage, verified.", func(u blobs.Usage) int64 { return u.Blobs }},
		{"blob_bytes", "Sizes of the blobs in the storage together.", func(u blobs.Usage) int64 { return u.Bytes }},
		{"open_uploads", "Uploads that are neither completed nor aborted.", func(u blobs.Usage) int64 { return u.Uploads }},
	} {
		m.usage = append(m.usage, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, ConstLabels: labels, Name: g.name, Help: g.help,
		}, func() float64 { return m.used(g.of) }))
	}
	return m
}

// used is a figure of the storage, NaN where it cannot be told.
func (m *metrics) used(of func(blobs.Usage) int64) float64 {
	storage := m.storage.Load()
	if storage == nil {
		return math.NaN()
	}
	usage, err := storage.Usage()
	if err != nil {
		return math.NaN()
	}
	return float64(of(usage))
}

// register adds the metrics to a configuration's registry.
func (m *metrics) register(registry *prometheus.Registry) error {
	for _, c := range append([]prometheus.Collector{m.requests, m.duration, m.inFlight, m.consumers}, m.usage...) {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

func (m *metrics) begin() { m.inFlight.Inc() }

// end counts a request that was answered with status, or 200 if that is 0.
func (m *metrics) end(c *call, status int) {
	m.inFlight.Dec()
	nsid := c.nsid
	if nsid == "" {
		nsid = "none"
	}
	if status == 0 {
		status = http.StatusOK
	}
	m.requests.WithLabelValues(nsid, strconv.Itoa(status/100)+"xx").Inc()
	m.duration.WithLabelValues(nsid).Observe(time.Since(c.start).Seconds())
}
