package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/integrations/chirpstack"
)

// site is an installation: settings and the server they name.
type site struct {
	config.Settings
	file string
	nw   *chirpstack.Network
	// events takes what ChirpStack's HTTP integration posts; nil: they come by MQTT.
	events *chirpstack.Webhook
}

// siteFlags name an installation on the command line.
type siteFlags struct{ file, server, mqtt string }

func (f *siteFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "config", settingsFile, "settings")
	cmd.Flags().StringVar(&f.server, "server", "", "address of the network server, instead of that of the settings")
	cmd.Flags().StringVar(&f.mqtt, "mqtt", "", "address of its broker, instead of that of the settings")
}

// read reads the settings.
func (f *siteFlags) read() (*site, error) {
	path := f.file
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("settings %s: no such file; write one with `sower init`, or name another with --config", path)
	}
	if err != nil {
		return nil, fmt.Errorf("settings %s: %w", path, unwrapPath(err))
	}
	cfg, doc := config.ParseSettings(path, text)
	if err := doc.Problems.Err(); err != nil {
		return nil, err
	}
	if f.server != "" {
		cfg.ChirpStack.Server = f.server
	}
	if f.mqtt != "" {
		cfg.ChirpStack.MQTT = f.mqtt
	}
	return &site{Settings: cfg, file: path}, nil
}

// open reads the settings and prepares the connection, beside a daemon that may run. The server is asked by the first
// call.
func (f *siteFlags) open() (*site, error) {
	s, err := f.read()
	if err != nil {
		return nil, err
	}
	cs := s.ChirpStack
	return s, s.dial(chirpstack.Config{ClientID: cs.ClientID, Watch: true})
}

// openDaemon is open for the daemon: the broker keeps events for it while it is away, and every fragment has its fate
// reported if the settings say so.
func (f *siteFlags) openDaemon(log *slog.Logger) (*site, error) {
	s, err := f.read()
	if err != nil {
		return nil, err
	}
	cs := s.ChirpStack
	dial := chirpstack.Config{ClientID: cs.ClientID, Share: cs.Share, GatewayTopics: cs.GatewayTopics, Log: log}
	if cs.HTTPFile != "" || cs.HTTPEnv != "" {
		secret, err := s.secret("chirpstack.http_secret_file", "secret of ChirpStack's HTTP integration", cs.HTTPFile, cs.HTTPEnv)
		if err != nil {
			return nil, err
		}
		if s.events, err = chirpstack.NewWebhook(secret, 0); err != nil {
			return nil, fmt.Errorf("settings %s: %w", s.file, err)
		}
		dial.Webhook = s.events
	}
	return s, s.dial(dial)
}

// dial prepares the connection.
func (s *site) dial(dial chirpstack.Config) (err error) {
	cs := s.ChirpStack
	dial.Server, dial.Region, dial.MQTT, dial.Username, dial.Topic, dial.Timeout =
		cs.Server, s.Region, cs.MQTT, cs.Username, cs.Topic, time.Duration(cs.Timeout)
	if dial.Token, err = s.secret("chirpstack.token_file", "API token", cs.TokenFile, cs.TokenEnv); err != nil {
		return err
	}
	if cs.PasswordFile != "" || cs.PasswordEnv != "" {
		if dial.Password, err = s.secret("chirpstack.mqtt_password_file", "MQTT password", cs.PasswordFile, cs.PasswordEnv); err != nil {
			return err
		}
	}
	if cs.CAFile != "" {
		pem, err := readInput("certificate authority", s.path(cs.CAFile))
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("certificate authority %s: no PEM certificate in it", s.path(cs.CAFile))
		}
		dial.TLS = &tls.Config{RootCAs: pool}
	}
	if dial.Keys, err = s.rootKeys(); err != nil {
		return err
	}
	if s.nw, err = chirpstack.Dial(dial); err != nil {
		return fmt.Errorf("settings %s: %w", s.file, err)
	}
	return nil
}

// rootKeys returns the source of root keys that goes before the server, or nil.
func (s *site) rootKeys() (chirpstack.KeySource, error) {
	cs := s.ChirpStack
	switch {
	case len(cs.KeysProgram) > 0:
		return &chirpstack.KeyProgram{Args: cs.KeysProgram, Stderr: os.Stderr}, nil
	case cs.KeysFile == "":
		return nil, nil
	}
	text, err := readInput("file of root keys", s.path(cs.KeysFile))
	if err != nil {
		return nil, err
	}
	pass, err := readInput("passphrase of "+s.path(cs.KeysFile), s.path(cs.KeysPassphrase))
	if err != nil {
		return nil, err
	}
	first, _, _ := bytes.Cut(pass, []byte("\n"))
	return chirpstack.OpenKeyFile(s.path(cs.KeysFile), text, bytes.TrimSuffix(first, []byte("\r")))
}

// path returns a file that the settings name, seen from where they are.
func (s *site) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(s.file), name)
}

// secret reads a secret from its file or its environment variable.
func (s *site) secret(key, what, file, env string) (string, error) {
	if env != "" {
		if v := strings.TrimSpace(os.Getenv(env)); v != "" {
			return v, nil
		}
		return "", fmt.Errorf("settings %s: the environment variable %s, which is to hold the %s, is empty", s.file, env, what)
	}
	b, err := os.ReadFile(s.path(file))
	if err != nil {
		return "", fmt.Errorf("settings %s: %s: %s %s: %w; put the %s into that file", s.file, key, what, s.path(file), unwrapPath(err), what)
	}
	v := string(bytes.TrimSpace(b))
	if v == "" || strings.ContainsAny(v, " \t\n\r") {
		return "", fmt.Errorf("settings %s: %s: %s holds not one word; put the %s into it and nothing else", s.file, key, s.path(file), what)
	}
	return v, nil
}
