package api

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/jobs"
	"github.com/sower-fuota/sower/engine/run"
)

// Metrics counts what the engine does. Make it before the engine and give it Log and Store.
type Metrics struct {
	registry *prometheus.Registry
	entries  *prometheus.CounterVec
	commits  prometheus.Histogram
	failures prometheus.Counter
	queue    atomic.Int64
}

// NewMetrics returns metrics that have counted nothing.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sower_log_entries_total",
			Help: "Log entries by kind: uplink, join, sent and dropped are events of the network, retry and failed are calls that went wrong."}, []string{"kind"}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sower_commit_seconds", Help: "Time that a commit to the database took.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "sower_commit_failures_total", Help: "Commits to the database that failed; the engine stops then."}),
	}
	for _, kind := range []string{"uplink", "join", "sent", "dropped", "retry", "failed"} {
		m.entries.WithLabelValues(kind) // from the beginning, so that rates are right
	}
	m.registry.MustRegister(m.entries, m.commits, m.failures, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sower_queue_jobs", Help: "Effects that wait to be carried out."},
			func() float64 { return float64(m.queue.Load()) }))
	return m
}

// Log counts an entry; it goes into run.Config.Log.
func (m *Metrics) Log(e run.Entry) { m.entries.WithLabelValues(e.Kind).Inc() }

// Store returns a store that is measured.
func (m *Metrics) Store(s run.Store) run.Store { return measured{s, m} }

type measured struct {
	run.Store
	m *Metrics
}

func (s measured) Restore(ctx context.Context, now time.Time) (run.Snapshot, error) {
	snap, err := s.Store.Restore(ctx, now)
	s.m.queue.Store(int64(len(snap.Jobs)))
	return snap, err
}

func (s measured) Commit(ctx context.Context, r *run.Round) error {
	begun := time.Now()
	err := s.Store.Commit(ctx, r)
	s.m.commits.Observe(time.Since(begun).Seconds())
	if err != nil {
		s.m.failures.Inc()
		return err
	}
	for _, c := range r.Jobs {
		switch c.Do {
		case jobs.Enqueue:
			s.m.queue.Add(1)
		case jobs.Cancel:
			s.m.queue.Add(-1)
		}
	}
	return nil
}

var (
	descCampaigns = prometheus.NewDesc("sower_campaigns", "Campaigns by phase; halted says whether they stopped before their end. Those that have ended are counted for a day, or until the next start.", []string{"phase", "halted"}, nil)
	descDevices   = prometheus.NewDesc("sower_devices", "Devices of campaigns that have not ended.",
		[]string{"campaign", "stage", "from_version", "hardware", "cause"}, nil)
	// Not a counter: what a gateway turns out to have refused was not on the air.
	descAirtime = prometheus.NewDesc("sower_airtime_seconds", "Time on air per gateway.", []string{"campaign"}, nil)
	descSent    = prometheus.NewDesc("sower_fragments_total", "Fragments that the network has accepted.", []string{"campaign"}, nil)
	descRefused = prometheus.NewDesc("sower_fragments_refused_total", "Of them those that gateways have refused.", []string{"campaign"}, nil)
)

// fleet collects what the campaigns say of themselves.
type fleet struct{ s *Server }

func (fleet) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descCampaigns, descDevices, descAirtime, descSent, descRefused} {
		ch <- d
	}
}

// scrapeTimeout is how long a scrape waits for the engine.
const scrapeTimeout = 5 * time.Second

func (f fleet) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	type state struct{ phase, halted string }
	phases := map[state]int{}
	for p := campaign.PhaseDraft; p <= campaign.PhaseEnded; p++ {
		phases[state{p.String(), "no"}] = 0
	}
	for _, p := range []campaign.Phase{campaign.PhaseStopping, campaign.PhaseEnded} {
		phases[state{p.String(), "yes"}] = 0 // an alert sees a change only in what was there before
	}
	var out []prometheus.Metric
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...))
	}
	err := f.s.cfg.Engine.View(ctx, func(all []*campaign.Campaign) {
		for _, c := range all {
			p, halted := c.Progress(), "no"
			if p.Halted != "" {
				halted = "yes"
			}
			phases[state{p.Phase.String(), halted}]++
			gauge(descAirtime, p.Airtime.Seconds(), c.ID())
			accepted, refused := fragments(p)
			counts := map[kind]int{}
			for i := range p.Sessions {
				if p.Phase != campaign.PhaseEnded {
					count(counts, c, i)
				}
			}
			counter(descSent, float64(accepted), c.ID())
			counter(descRefused, float64(refused), c.ID())
			for k, n := range counts {
				gauge(descDevices, float64(n), c.ID(), k.stage.String(), version(k.from), hardware(k.hardware), k.cause.String())
			}
		}
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descCampaigns, err)
		return
	}
	for st, n := range phases {
		gauge(descCampaigns, float64(n), st.phase, st.halted)
	}
	for _, m := range out {
		ch <- m
	}
}

// fragments counts those that the network has accepted, and of them those that gateways have refused. Neither number
// falls: sessions take what was refused off what was sent.
func fragments(p campaign.Progress) (accepted, refused int) {
	for _, s := range p.Sessions {
		accepted += s.DataSent + s.ParitySent + s.Refused
		refused += s.Refused
	}
	return accepted, refused
}

// metricsHandler serves /metrics to whoever has a token, and to this machine if the settings say so.
func (s *Server) metricsHandler() http.Handler {
	next := promhttp.HandlerFor(s.cfg.Metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 2 * scrapeTimeout})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.OpenMetrics && fromHere(r) {
			next.ServeHTTP(w, r)
			return
		}
		if _, err := s.guard.admit(r); err != nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// fromHere reports whether a request was made on this machine, for this machine: not passed on by a proxy, and not by a
// web page that has its name point here.
func fromHere(r *http.Request) bool {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	host, _, noPort := net.SplitHostPort(r.Host)
	if noPort != nil {
		host = r.Host
	}
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	return err == nil && isLoopback(peer) && isLoopback(host)
}
