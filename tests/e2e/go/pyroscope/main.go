// pyroscope is a stand-in for a Pyroscope server's write path, on the real protocol packages: Connect and
// gRPC push with the server's own limits, orders of checks, texts and status codes. It keeps what it took
// and shows it at /received.
//
// Control, all as query parameters of POST /control: delay=500ms, fail=N (answer the next N pushes with
// code=unavailable|resource_exhausted|unknown|invalid_argument), window=1h (0: any age), multitenancy=true,
// rate=N (bytes a second of one tenant, with burst=N; 0: any), authorization=TEXT (else 401), hold=true (pushes wait
// until hold=false).
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"flue/tests/e2e/go/canonical"

	"connectrpc.com/connect"
	"github.com/google/pprof/profile"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
)

const (
	maxLabels       = 30
	maxLabelName    = 1024
	maxLabelValue   = 2048
	maxProfile      = 4 << 20
	maxSamples      = 16000
	maxSampleLabels = 100
	maxBody         = 256 << 20
)

type received struct {
	Tenant   string            `json:"tenant"`
	Protocol string            `json:"protocol"`
	Labels   map[string]string `json:"labels"`
	ID       string            `json:"id"`
	Arrived  int64             `json:"arrived_nanos"` // of its request
	Bytes    int               `json:"bytes"`
	Gzip     bool              `json:"gzip"`
	Raw      []byte            `json:"raw,omitempty"`
	canonical.Profile
	parsed *profile.Profile
}

type server struct {
	mu            sync.Mutex
	kept          []*received
	seen          map[string]bool
	replaced      int
	requests      int
	inFlight      int
	maxInFlight   int
	connections   map[net.Conn]bool
	delay         time.Duration
	window        time.Duration
	fail          int
	code          connect.Code
	retryAfter    string
	multitenancy  bool
	rate, burst   float64
	buckets       map[string]*bucket
	limited       int
	authorization string
	held          chan struct{} // closed when what is held goes on; nil: nothing is
}

type bucket struct {
	tokens float64
	at     time.Time
}

// As the distributor: every profile by itself, uncompressed, with its labels.
func (s *server) take(tenant string, bytes int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rate == 0 {
		return nil
	}
	now := time.Now()
	b := s.buckets[tenant]
	if b == nil {
		b = &bucket{tokens: s.burst, at: now}
		s.buckets[tenant] = b
	}
	b.tokens = min(s.burst, b.tokens+s.rate*now.Sub(b.at).Seconds())
	b.at = now
	if b.tokens < float64(bytes) {
		s.limited++
		return fail(connect.CodeResourceExhausted, "push rate limit (%.1f KiB) exceeded while adding %d B", s.rate/1024, bytes)
	}
	b.tokens -= float64(bytes)
	return nil
}

func fail(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

func (s *server) check(labels map[string]string, names []string, raw []byte) (*received, error) {
	bad := func(format string, args ...any) error { return fail(connect.CodeInvalidArgument, format, args...) }
	text := fmt.Sprint(labels)
	data := raw
	r := &received{Labels: labels, Bytes: len(raw)}
	if len(raw) > 2 && raw[0] == 0x1f && raw[1] == 0x8b {
		r.Gzip = true
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err == nil {
			data, err = io.ReadAll(io.LimitReader(z, maxProfile+1))
		}
		if err != nil {
			return nil, fail(connect.CodeUnknown, "gzip reset: %v", err)
		}
	}
	if len(data) > maxProfile {
		return nil, bad("uncompressed profile payload size exceeds limit of 4.2 MB")
	}
	p, err := profile.ParseUncompressed(data)
	if err != nil {
		return nil, fail(connect.CodeUnknown, "proto: %v", err)
	}
	if len(p.SampleType) == 0 {
		return nil, bad("empty profile")
	}
	if err := p.CheckValid(); err != nil {
		return nil, bad("malformed profile: %v", err)
	}
	if len(labels) == 0 {
		return nil, bad("error at least one label pair is required per profile")
	}
	if len(labels) != len(names) {
		return nil, bad("profile with labels '%s' has duplicate label name", text)
	}
	if labels["__name__"] == "" {
		return nil, bad("invalid labels '%s' with error: invalid metric name", text)
	}
	if labels["service_name"] == "" {
		labels["service_name"] = "unknown_service"
	}
	sampleLabels := map[string]bool{}
	for _, sample := range p.Sample {
		if len(sample.Label)+len(sample.NumLabel) > maxSampleLabels {
			return nil, bad("the profile with labels '%s' exceeds the sample labels limit", text)
		}
		for k := range sample.Label {
			if k != "span_id" && k != "trace_id" && k != "profile_id" {
				sampleLabels[k] = true
			}
		}
	}
	if n := len(labels) + len(sampleLabels); n > maxLabels {
		return nil, bad("profile series '%s' has %d label names; limit %d", text, n, maxLabels)
	}
	for k, v := range labels {
		if len(k) > maxLabelName || len(v) > maxLabelValue {
			return nil, bad("profile with labels '%s' has label name or value too long: '%s'", text, k)
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) || k == "" {
			return nil, bad("invalid labels '%s' with error: invalid label name '%s'", text, k)
		}
	}
	if len(p.Sample) > maxSamples {
		return nil, bad("the profile with labels '%s' exceeds the samples count limit (max_profile_stacktrace_samples, actual: %d, limit: %d)", text, len(p.Sample), maxSamples)
	}
	for _, t := range p.SampleType {
		if strings.Contains(t.Type, "-") {
			return nil, bad("sample type contains -")
		}
	}
	if s.window > 0 && p.TimeNanos > 0 {
		now := time.Now()
		at := time.Unix(0, p.TimeNanos)
		if at.Before(now.Add(-s.window)) || at.After(now.Add(10*time.Minute)) {
			return nil, bad("profile with labels '%s' is outside of ingestion window (profile timestamp: %s)", text, at)
		}
	}
	r.parsed = p
	r.Raw = raw
	r.Profile = canonical.Of(p, true)
	r.Uncompressed = len(data)
	return r, nil
}

func (s *server) Push(ctx context.Context, req *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	arrived := time.Now().UnixNano()
	s.mu.Lock()
	s.requests++
	s.inFlight++
	s.maxInFlight = max(s.maxInFlight, s.inFlight)
	delay, failing, code, retryAfter := s.delay, s.fail > 0, s.code, s.retryAfter
	if failing {
		s.fail--
	}
	multi, authorization, held := s.multitenancy, s.authorization, s.held
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.inFlight--; s.mu.Unlock() }()
	tenant := req.Header().Get("X-Scope-OrgID")
	if authorization != "" && req.Header().Get("Authorization") != authorization {
		return nil, fail(connect.CodeUnauthenticated, "not with these credentials")
	}
	if multi && tenant == "" {
		return nil, fail(connect.CodeUnauthenticated, "no org id")
	}
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return nil, fail(connect.CodeCanceled, "client gone")
		}
	}
	if failing {
		err := connect.NewError(code, errors.New("told to fail"))
		if retryAfter != "" {
			err.Meta().Set("Retry-After", retryAfter)
		}
		return nil, err
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, fail(connect.CodeCanceled, "client gone")
		}
	}
	var first error
	count := 0
	for _, series := range req.Msg.Series {
		labels := map[string]string{}
		var names []string
		for _, l := range series.Labels {
			labels[l.Name] = l.Value
			names = append(names, l.Name)
		}
		for _, sample := range series.Samples {
			count++
			copied := map[string]string{}
			for k, v := range labels {
				copied[k] = v
			}
			r, err := s.check(copied, names, sample.RawProfile)
			if err == nil {
				size := r.Uncompressed
				for k, v := range copied {
					size += len(k) + len(v)
				}
				err = s.take(tenant, size)
			}
			if err != nil {
				if first == nil {
					first = err
				}
				continue
			}
			r.Arrived = arrived
			r.Tenant, r.Protocol, r.ID = tenant, req.Peer().Protocol, sample.ID
			s.keep(r)
		}
	}
	if count == 0 {
		return nil, fail(connect.CodeInvalidArgument, "no profiles received")
	}
	if first != nil {
		return nil, first
	}
	return connect.NewResponse(&pushv1.PushResponse{}), nil
}

// The store keeps one row per (series, time): an equal second one replaces nothing, it is lost.
func (s *server) keep(r *received) {
	keys := make([]string, 0, len(r.Labels))
	for k, v := range r.Labels {
		keys = append(keys, k+"="+v)
	}
	sort.Strings(keys)
	key := r.Tenant + "\x00" + strings.Join(keys, "\x00") + "\x00" + strconv.FormatInt(r.TimeNanos, 10)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[key] {
		s.replaced++
		return
	}
	s.seen[key] = true
	s.kept = append(s.kept, r)
}

func (s *server) control(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, vs := range req.URL.Query() {
		var err error
		switch v := vs[0]; k {
		case "delay":
			s.delay, err = time.ParseDuration(v)
		case "window":
			s.window, err = time.ParseDuration(v)
		case "fail":
			s.fail, err = strconv.Atoi(v)
		case "retry_after":
			s.retryAfter = v
		case "code":
			err = s.code.UnmarshalText([]byte(v))
		case "rate":
			s.rate, err = strconv.ParseFloat(v, 64)
			s.buckets = map[string]*bucket{}
		case "burst":
			s.burst, err = strconv.ParseFloat(v, 64)
			s.buckets = map[string]*bucket{}
		case "authorization":
			s.authorization = v
		case "hold":
			if s.held != nil {
				close(s.held)
				s.held = nil
			}
			if v == "true" {
				s.held = make(chan struct{})
			}
		case "multitenancy":
			s.multitenancy = v == "true"
		case "reset":
			s.kept, s.seen, s.replaced, s.requests, s.maxInFlight, s.limited = nil, map[string]bool{}, 0, 0, 0, 0
		default:
			err = fmt.Errorf("unknown control %q", k)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
}

func (s *server) show(w http.ResponseWriter, req *http.Request) {
	full, _ := url.ParseQuery(req.URL.RawQuery)
	s.mu.Lock()
	defer s.mu.Unlock()
	profiles := make([]received, 0, len(s.kept))
	for _, r := range s.kept {
		c := *r
		if !full.Has("full") {
			c.Samples = nil
		}
		if !full.Has("raw") {
			c.Raw = nil
		}
		profiles = append(profiles, c)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"profiles": profiles, "lost_duplicates": s.replaced, "requests": s.requests, "rate_limited": s.limited,
		"max_in_flight": s.maxInFlight, "connections": len(s.connections),
	})
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address")
	flag.Parse()
	s := &server{seen: map[string]bool{}, buckets: map[string]*bucket{}, connections: map[net.Conn]bool{}, code: connect.CodeUnavailable, window: time.Hour}
	mux := http.NewServeMux()
	mux.Handle(pushv1connect.NewPusherServiceHandler(s, connect.WithReadMaxBytes(maxBody)))
	mux.HandleFunc("POST /control", s.control)
	mux.HandleFunc("GET /received", s.show)
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	httpServer := &http.Server{Handler: mux, Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 250},
		ConnState: func(c net.Conn, state http.ConnState) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if state == http.StateNew {
				s.connections[c] = true
			}
		}}
	fmt.Println(listener.Addr())
	log.Fatal(httpServer.Serve(listener))
}
