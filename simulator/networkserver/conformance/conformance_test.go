package conformance_test

import (
	"context"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sower-fuota/sower/simulator/gateway"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/networkserver/conformance"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

var epoch = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

func dial(t *testing.T, address string) *grpc.ClientConn {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// own runs the suite against the project's server.
func own(t *testing.T, change func(*networkserver.Config)) *conformance.Report {
	w := world.New(epoch)
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	cfg := networkserver.Config{
		World: w, Medium: radio.NewMedium(w, radio.EU868(), loss), Seed: 1, Token: "secret",
		Tenant: networkserver.Tenant{ID: networkserver.UUID(1, "tenant"), Name: "tenant"},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := networkserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	r, err := conformance.Run(t.Context(), conformance.Target{
		Conn: dial(t, s.GRPCAddress()), Token: "secret", Broker: "mqtt://" + s.MQTTAddress(), World: w, Seed: 1, Pass: conformance.Virtual(w),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestOwnServer runs the suite against the project's server in both flavours and compares the report with the one
// that was read and approved. CONFORMANCE_UPDATE=1 writes it anew.
func TestOwnServer(t *testing.T) {
	for name, db := range map[string]networkserver.Database{"postgresql": networkserver.PostgreSQL, "sqlite": networkserver.SQLite} {
		r := own(t, func(c *networkserver.Config) { c.Database = db })
		for _, f := range r.Failures {
			t.Errorf("%s: %s", name, f)
		}
		file := "testdata/" + name + ".txt"
		if os.Getenv("CONFORMANCE_UPDATE") != "" {
			if err := os.WriteFile(file, []byte(r.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, got := strings.Split(string(golden), "\n"), strings.Split(r.String(), "\n")
		for i := range max(len(want), len(got)) {
			var a, b string
			if i < len(want) {
				a = want[i]
			}
			if i < len(got) {
				b = got[i]
			}
			if a != b {
				t.Errorf("%s:%d: %q, want %q", file, i+1, b, a)
			}
		}
	}
}

// TestSuiteFindsADeviation runs the suite against a server whose events get lost or doubled, or one of whose replies
// never arrives: it must not pass.
func TestSuiteFindsADeviation(t *testing.T) {
	for name, f := range map[string]networkserver.Faults{
		"lost events":       {Events: networkserver.EventFaults{Loss: 0.5}},
		"duplicated events": {Events: networkserver.EventFaults{Duplicate: 0.5}},
		"lost reply":        {Calls: []networkserver.CallFault{{Method: "/api.MulticastGroupService/AddDevice", Effect: networkserver.ReplyLost, Count: 1}}},
	} {
		if r := own(t, func(c *networkserver.Config) { c.Faults = f }); len(r.Failures) == 0 {
			t.Errorf("%s: nothing found", name)
		}
	}
}

// TestOwnServerInRealTime runs the suite as it runs against a real server: two worlds, both driven by the wall clock,
// which meet in nothing but sockets. It takes ten minutes and wants SOWER_PROOF=1.
func TestOwnServerInRealTime(t *testing.T) {
	if os.Getenv("SOWER_PROOF") == "" {
		t.Log("SOWER_PROOF is not set")
		return
	}
	w := world.New(time.Now())
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := networkserver.New(networkserver.Config{
		World: w, Medium: radio.NewMedium(w, radio.EU868(), loss), Seed: 1, Token: "secret",
		Tenant: networkserver.Tenant{ID: networkserver.UUID(1, "tenant"), Name: "tenant"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = gateway.Run(ctx, w) }) // ends with the context
	defer running.Wait()
	defer cancel()
	r, err := realTime(t, s.GRPCAddress(), "secret", "mqtt://"+s.MQTTAddress())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Failures {
		t.Error(f)
	}
	t.Log("\n" + r.String())
}

// realTime runs the suite against a server that lives in real time.
func realTime(t *testing.T, address, token, broker string) (*conformance.Report, error) {
	now := time.Now()
	w := world.New(now)
	return conformance.Run(t.Context(), conformance.Target{
		Conn: dial(t, address), Token: token, Broker: broker, World: w, Seed: uint64(now.UnixNano()), Pass: conformance.Real(w),
	})
}

// TestRealServer runs the suite against the server that CHIRPSTACK_URL (host:port of the API), CHIRPSTACK_TOKEN (key
// of an administrator) and CHIRPSTACK_MQTT (mqtt://host:port) name, in real time: about ten minutes. Without them
// there is nothing to do.
func TestRealServer(t *testing.T) {
	address, token, broker := os.Getenv("CHIRPSTACK_URL"), os.Getenv("CHIRPSTACK_TOKEN"), os.Getenv("CHIRPSTACK_MQTT")
	if address == "" || token == "" || broker == "" {
		t.Log("CHIRPSTACK_URL, CHIRPSTACK_TOKEN and CHIRPSTACK_MQTT name no server")
		return
	}
	r, err := realTime(t, address, token, broker)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Failures {
		t.Error(f)
	}
	t.Log("\n" + r.String())
	if file := os.Getenv("CONFORMANCE_REPORT"); file != "" {
		if err := os.WriteFile(file, []byte(r.String()), 0o644); err != nil {
			t.Error(strconv.Quote(file), err)
		}
	}
}

// TestAsTheRealServer compares what a real ChirpStack 4.20.0-test.1 said on 2026-11-22, on SQLite and on PostgreSQL, with
// what the project's server says: the same transcript, line by line. The statements, which hold measured times, must have
// the same verdict.
func TestAsTheRealServer(t *testing.T) {
	lines := func(file string) []string {
		text, err := os.ReadFile("testdata/" + file + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(text), "\n")
	}
	for _, db := range []string{"sqlite", "postgresql"} {
		real, own := lines("chirpstack-4.20.0-test.1-"+db), lines(db)
		if len(real) != len(own) {
			t.Fatalf("%s: %d lines of the real server, %d of ours", db, len(real), len(own))
		}
		for i := range real {
			a, b := real[i], own[i]
			for _, verdict := range []conformance.Verdict{conformance.Confirmed, conformance.Refuted, conformance.Open} {
				if strings.HasPrefix(a, string(verdict)+": ") { // without the evidence
					a, _, _ = strings.Cut(a, " (")
					b, _, _ = strings.Cut(b, " (")
				}
			}
			if a != b && !within(a, b) {
				t.Errorf("%s, line %d: the real server %q, ours %q", db, i+1, a, b)
			}
		}
	}
}

var instants = regexp.MustCompile(`@(\d+)s`)

// within reports whether two lines differ by a second at most in the instants that they name, and in nothing else: the
// clock of a real server does not keep still while it works.
func within(a, b string) bool {
	if instants.ReplaceAllString(a, "") != instants.ReplaceAllString(b, "") {
		return false
	}
	x, y := instants.FindAllStringSubmatch(a, -1), instants.FindAllStringSubmatch(b, -1)
	for i := range x {
		m, err := strconv.Atoi(x[i][1])
		n, err2 := strconv.Atoi(y[i][1])
		if err != nil || err2 != nil || m-n > 1 || n-m > 1 {
			return false
		}
	}
	return len(x) > 0
}
