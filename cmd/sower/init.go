package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/config"
)

// settingsFile is where the verbs that talk to a network server look for settings.
const settingsFile = "sower.toml"

func newInitCommand() *cobra.Command {
	var out, server, mqtt, region, token string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "write a sower.toml with every default commented",
		Long: `init writes the settings of an installation: how to reach ChirpStack and its broker, and every default in a
comment. It never overwrites a file, and it holds no secret: the API key goes into a file of its own or into an
environment variable.

It also makes the database of sower serve beside the settings, and prints the first token for its API, which is not
shown again.`,
		Example: "  sower init --server https://lns.example.com:443 --mqtt mqtts://lns.example.com:8883\n  sower doctor",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := airtime.ParseRegion(region); err != nil && region != "" {
				return usagef("init: --region: %w", err)
			}
			return initSettings(cmd.Context(), cmd.OutOrStdout(), out, config.SettingsTemplate(server, mqtt, region, token), token)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "output", "o", settingsFile, "file to write")
	f.StringVar(&server, "server", "127.0.0.1:8080", "API of ChirpStack, HOST:PORT or https://HOST:PORT")
	f.StringVar(&mqtt, "mqtt", "mqtt://127.0.0.1:1883", "broker of its events, mqtt://HOST:PORT or mqtts://HOST:PORT")
	f.StringVar(&region, "region", "", "refuse devices of any other region, such as EU868; each is served in that of its profile")
	f.StringVar(&token, "token-file", "sower.token", "file that will hold the API key")
	return cmd
}

func initSettings(ctx context.Context, stdout io.Writer, out, text, token string) error {
	// What is written must be readable, whatever the flags were.
	cfg, doc := config.ParseSettings(out, []byte(text))
	if len(doc.Problems) > 0 {
		return doc.Problems.Err()
	}
	if err := mustNotExist(out); err != nil {
		return err
	}
	if err := writeOutput(out, []byte(text), 0o644); err != nil {
		return err
	}
	if !filepath.IsAbs(token) {
		token = filepath.Join(filepath.Dir(out), token)
	}
	fmt.Fprintf(stdout, "%s written\nput an API key of ChirpStack into %s (chmod 600), then run: sower doctor\n", out, token)
	_, err := firstToken(ctx, stdout, filepath.Join(filepath.Dir(out), cfg.Server.Database), false)
	return err
}
