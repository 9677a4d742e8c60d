package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/engine/api"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
	shell "github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
)

func newServeCommand() *cobra.Command {
	var at siteFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run campaigns, and answer the API",
		Long: `serve runs the campaigns of an installation and answers the API, which "sower campaign" speaks. It keeps everything
in the database that sower.toml names, and goes on after a restart where it was stopped, at any instant. SIGTERM and
SIGINT stop it; that does not end the campaigns.

The log goes to standard error as JSON lines. It holds no secret.`,
		Example: "  sower init\n  sower serve",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := daemon{clock: &network.WallClock{}, concurrent: true, log: cmd.ErrOrStderr()}
			return d.run(cmd.Context(), &at)
		},
	}
	at.add(cmd)
	return cmd
}

// daemon is `sower serve` with its surroundings as parameters.
type daemon struct {
	clock      network.Clock
	concurrent bool // calls of the network side by side; not in virtual time
	log        io.Writer
	ready      func(address string) // called when the API answers; may be nil
}

// run serves until ctx ends.
func (d daemon) run(ctx context.Context, at *siteFlags) (err error) {
	log := slog.New(slog.NewJSONHandler(d.log, nil))
	s, err := at.openDaemon(log)
	if err != nil {
		return err
	}
	defer s.nw.Close()
	db, err := store.Open(ctx, s.path(s.Server.Database), store.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tokens, err := db.Tokens(ctx)
	if err != nil {
		return err
	}
	if len(tokens) == 0 {
		return fmt.Errorf("database %s has no API token yet, so nobody could use the API; make the first one with: sower token first --config %s", s.path(s.Server.Database), s.file)
	}
	key, err := evidenceKey(filepath.Join(filepath.Dir(s.path(s.Server.Database)), "evidence.key"))
	if err != nil {
		return err
	}
	listener, err := api.Listen(s.Server.Listen, s.optional(s.Server.TLSCert), s.optional(s.Server.TLSKey))
	if err != nil {
		return fmt.Errorf("settings %s: [server]: %w", s.file, err)
	}
	defer listener.Close()
	metrics := api.NewMetrics()
	rules := batteryRules(s.Inventory)
	engine := shell.New(shell.Config{Network: s.nw, Clock: d.clock, Store: metrics.Store(db), Concurrent: d.concurrent,
		Log:   (&journal{log: log, count: metrics.Log}).entry,
		Facts: batteryFacts(rules)})
	planner := s.planner(logWriter{log})
	srv, err := api.New(api.Config{
		Engine: engine, Store: db, Planner: planner, Keys: randomKeys, Now: d.clock.Now, Metrics: metrics,
		Evidence: key, BackupDir: s.optional(s.Server.BackupDir), Version: version(), Log: log, OpenMetrics: s.Server.Metrics,
	})
	if err != nil {
		return err
	}
	planner.Started = srv.Started
	hook, err := s.webhook(engine, db, log, d.clock.Now)
	if err != nil {
		return err
	}

	stopped := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	part := func(f func(context.Context) error) {
		all.Go(func() { cancel(f(ctx)) })
	}
	part(engine.Run)
	part((&poller{engine: engine, devices: s.nw.Devices, file: db.File, ruled: len(rules) > 0, log: log}).run)
	part((&logKeeper{db: db, days: s.Server.KeepLog, now: d.clock.Now, log: log}).run)
	mux := http.NewServeMux()
	mux.Handle("/", srv.Handler())
	if s.events != nil {
		mux.Handle("/chirpstack", s.events)
	}
	part(func(ctx context.Context) error { return serveHTTP(ctx, listener, mux, readTimeout) })
	if hook != nil {
		part(hook.Run)
	}
	log.Info("serving", "address", listener.Addr().String(), "tls", s.Server.TLSCert != "", "database", s.path(s.Server.Database),
		"network", s.ChirpStack.Server, "version", version())
	if d.ready != nil {
		d.ready(listener.Addr().String())
	}
	<-ctx.Done()
	all.Wait()
	if stopped.Err() == nil {
		log.Error("stopped by an error; the campaigns go on when sower serve starts again", "error", context.Cause(ctx).Error())
		return context.Cause(ctx)
	}
	log.Info("stopped; the campaigns go on when sower serve starts again")
	return nil
}

// optional is path, but nothing stays nothing.
func (s *site) optional(name string) string {
	if name == "" {
		return ""
	}
	return s.path(name)
}

// readTimeout is how long the headers of a request may take, and then its body.
const readTimeout = 10 * time.Second

// serveHTTP answers until ctx ends, and lets calls that are under way finish. Headers come within patience, and so does a
// body.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, patience time.Duration) error {
	// gRPC without TLS, on loopback, speaks HTTP/2 from the first byte.
	var p http.Protocols
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	timely := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A body that never comes must not hold the connection of a request that is refused. Package api allows those
		// that it has admitted more.
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience))
		h.ServeHTTP(w, r)
	})
	srv := &http.Server{Handler: timely, Protocols: &p, ReadHeaderTimeout: patience, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10, BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		srv.Close()
	}
	return context.Cause(ctx)
}

// webhook returns the webhook of the settings, or nil.
func (s *site) webhook(engine *shell.Engine, db *store.Store, log *slog.Logger, now func() time.Time) (*api.Webhook, error) {
	if s.Server.Webhook == "" {
		return nil, nil
	}
	if err := api.CheckWebhook(s.Server.Webhook); err != nil {
		return nil, fmt.Errorf("settings %s: %w", s.file, err)
	}
	secret, err := s.secret("server.webhook_secret_file", "secret of the webhook", s.Server.SecretFile, s.Server.SecretEnv)
	if err != nil {
		return nil, err
	}
	return &api.Webhook{URL: s.Server.Webhook, Secret: []byte(secret), Engine: engine, Store: db, Now: now, Log: log,
		Cursors: cursorFile(filepath.Join(filepath.Dir(s.path(s.Server.Database)), "webhook.json"))}, nil
}

// cursorFile keeps in a file how far the webhook has come.
type cursorFile string

func (f cursorFile) Load() (map[string]int64, error) {
	at := map[string]int64{}
	text, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return at, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &at)
	}
	if err != nil {
		return nil, fmt.Errorf("webhook %s: %w; remove the file, and all notices are sent again", string(f), unwrapPath(err))
	}
	return at, nil
}

func (f cursorFile) Save(at map[string]int64) error {
	text, err := json.Marshal(at)
	if err != nil {
		return err
	}
	return writeOutput(string(f), text, 0o600)
}

// randomKeys makes address and key of a multicast group.
func randomKeys() (uint32, network.Key, error) {
	var address [4]byte
	var key network.Key
	rand.Read(address[:])
	rand.Read(key[:])
	return binary.BigEndian.Uint32(address[:]), key, nil
}

var _ prepare.Keys = randomKeys

// evidenceKey reads the key that signs evidence, or makes it.
func evidenceKey(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, text, err := api.NewEvidenceKey()
		if err != nil {
			return nil, err
		}
		return key, writeOutput(path, text, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, unwrapPath(err))
	}
	key, err := api.ParseEvidenceKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; put the key back, or remove the file: then evidence is signed with a new one", path, err)
	}
	return key, nil
}

// logWriter turns lines of warnings into log entries.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.log.Warn("inventory", "text", string(b))
	return len(b), nil
}
