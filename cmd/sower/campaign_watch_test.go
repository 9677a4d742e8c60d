package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
)

// watched is a daemon of which only Watch works. It can be stopped, and started again at the same address.
type watched struct {
	sowerv1connect.UnimplementedCampaignServiceHandler
	address string

	mu      sync.Mutex
	server  *http.Server
	cursors []string                                          // of the calls
	answer  func(send func(cursor, phase string) error) error // of the next call
}

func (d *watched) Watch(_ context.Context, req *connect.Request[pb.WatchRequest], stream *connect.ServerStream[pb.WatchResponse]) error {
	d.mu.Lock()
	d.cursors = append(d.cursors, req.Msg.Cursor)
	answer := d.answer
	d.mu.Unlock()
	return answer(func(cursor, phase string) error {
		return stream.Send(&pb.WatchResponse{Cursor: cursor, Campaign: &pb.Campaign{Id: req.Msg.Id, Phase: phase}})
	})
}

// listen opens the port of the daemon. Between two lives of the daemon another process may have it for a moment, as the
// near end of a connection.
func (d *watched) listen() (net.Listener, error) {
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for try := 0; ; try++ {
		l, err := net.Listen("tcp", d.address)
		if !errors.Is(err, syscall.EADDRINUSE) || try == 6000 {
			return l, err
		}
		<-pace.C
	}
}

// start answers calls in that way from now on.
func (d *watched) start(t *testing.T, answer func(send func(cursor, phase string) error) error) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	l, err := d.listen()
	if err != nil {
		t.Error(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle(sowerv1connect.NewCampaignServiceHandler(d))
	d.address, d.server, d.answer = l.Addr().String(), &http.Server{Handler: mux}, answer
	go d.server.Serve(l)
}

// stop cuts all connections.
func (d *watched) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server.Close()
}

// refuse cuts the next connection to the address of the daemon that was stopped.
func (d *watched) refuse(t *testing.T) {
	t.Helper()
	l, err := d.listen()
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	c, err := l.Accept()
	if err != nil {
		t.Error(err)
		return
	}
	c.Close()
}

// notes calls then once, when a text is written that contains a word.
type notes struct {
	strings.Builder
	word string
	then func()
}

func (n *notes) Write(b []byte) (int, error) {
	if then := n.then; then != nil && strings.Contains(string(b), n.word) {
		n.then = nil
		then()
	}
	return n.Builder.Write(b)
}

// Who watches a campaign sees its end although the daemon stops, is away, and starts again.
func TestWatchAgain(t *testing.T) {
	const away, back = "the daemon is away, trying again\n", "the daemon answers again\n"
	cut := func(d *watched) func(func(string, string) error) error {
		return func(send func(string, string) error) error {
			err := send("5", "running")
			d.stop()
			return err
		}
	}
	stopping := func(*watched) func(func(string, string) error) error {
		return func(send func(string, string) error) error {
			send("5", "running")
			return connect.NewError(connect.CodeUnavailable, errors.New("sower serve is stopping"))
		}
	}
	refuse := func(code connect.Code) func(func(string, string) error) error {
		return func(func(string, string) error) error {
			return connect.NewError(code, errors.New("that will not pass"))
		}
	}
	end := func(send func(string, string) error) error { return send("9", "ended") }
	for _, tt := range []struct {
		name     string
		first    func(*watched) func(func(string, string) error) error
		second   func(func(string, string) error) error // nil: the daemon stays away and the watcher is interrupted
		notes    string
		cursors  string
		complain string
	}{
		{"the connection is cut", cut, end, away + back, " 5", ""},
		{"the daemon says that it stops", stopping, end, away + back, " 5", ""},
		{"the token was revoked", cut, refuse(connect.CodeUnauthenticated), away, " 5", "that will not pass"},
		{"the campaign is unknown", cut, refuse(connect.CodeNotFound), away, " 5", "that will not pass"},
		{"the daemon makes mistakes", cut, refuse(connect.CodeInternal), away, " 5", "that will not pass"},
		{"Ctrl-C while it is away", cut, nil, away, "", "interrupt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := &watched{address: "127.0.0.1:0"}
			d.start(t, tt.first(d))
			defer d.stop()
			ctx, interrupt := context.WithCancelCause(t.Context())
			defer interrupt(nil)
			var out strings.Builder
			var started sync.WaitGroup
			defer started.Wait()
			errs := &notes{word: "away", then: func() {
				d.stop()
				if tt.second == nil {
					interrupt(errors.New("interrupt"))
					return
				}
				started.Go(func() {
					d.refuse(t) // it is tried more than once
					d.start(t, tt.second)
				})
			}}
			cmd := newCampaignCommand()
			cmd.SetOut(&out)
			cmd.SetErr(errs)
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			token := t.TempDir() + "/token"
			if err := writeOutput(token, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd.SetArgs([]string{"watch", "meters", "--server", "http://" + d.address, "--token-file", token})
			err := cmd.ExecuteContext(ctx)
			if tt.complain == "" && err != nil || tt.complain != "" && (err == nil || !strings.Contains(err.Error(), tt.complain)) {
				t.Errorf("%v, want %q", err, tt.complain)
			}
			if errs.String() != tt.notes {
				t.Errorf("said %q, want %q", errs.String(), tt.notes)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			if got := strings.Join(d.cursors, " "); got != tt.cursors {
				t.Errorf("cursors %q, want %q", got, tt.cursors)
			}
			if want := []string{"meters: running", "meters: ended"}; tt.complain == "" && !slices.EqualFunc(strings.Split(strings.TrimSpace(out.String()), "\n"), want, strings.HasPrefix) {
				t.Errorf("printed %q", out.String())
			}
		})
	}
}

// A daemon that has never answered is not waited for: its address may be wrong.
func TestWatchNoDaemon(t *testing.T) {
	t.Setenv("SOWER_TOKEN", "secret")
	_, errs, err := verb(newCampaignCommand(), "watch", "meters", "--server", "http://"+nobody)
	if err == nil || !strings.Contains(err.Error(), "does not answer") || errs != "" {
		t.Errorf("%v %q", err, errs)
	}
}

func TestCounted(t *testing.T) {
	for n, want := range []string{"0 gateways", "1 gateway", "2 gateways"} {
		if got := counted(n, "gateway"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
