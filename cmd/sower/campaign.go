package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
)

func newCampaignCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "campaign",
		Short: "prepare, run and explain campaigns",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCampaignInitCommand(), newCampaignCreateCommand(), newCampaignListCommand(), newCampaignStatusCommand(),
		newCampaignDevicesCommand(), newCampaignWatchCommand(), newCampaignExplainCommand(), newCampaignEvidenceCommand(), newCampaignOrphansCommand())
	cmd.AddCommand(orderCommands()...)
	return cmd
}

func newCampaignInitCommand() *cobra.Command {
	var at siteFlags
	var out, name, base string
	var bundles []string
	cmd := &cobra.Command{
		Use:   "init APPLICATION",
		Short: "write a commented campaign file for an application",
		Long: `init writes a campaign file for an application of the network server, given by name or id, with every default
in a comment. It never overwrites a file.`,
		Example: "  sower campaign init meters --bundle update.sow --base old.bin -o meters.toml\n  sower plan meters.toml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if base != "" && len(bundles) != 1 {
				return usagef("campaign init: --base goes with one --bundle")
			}
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.nw.Close()
			app, err := s.application(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return campaignInit(cmd.OutOrStdout(), app, out, name, base, bundles)
		},
	}
	at.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&out, "output", "o", "", "file to write (default: NAME.toml)")
	f.StringVar(&name, "name", "", "name of the campaign (default: that of the application)")
	f.StringArrayVar(&bundles, "bundle", nil, "bundle to send; may be repeated")
	f.StringVar(&base, "base", "", "image that the bundle is a patch against")
	return cmd
}

// application finds an application by id or name.
func (s *site) application(ctx context.Context, what string) (chirpstack.Application, error) {
	app, err := s.nw.Application(ctx, what)
	if err == nil || errors.Is(err, network.ErrUnavailable) {
		return app, err
	}
	apps, listErr := s.applications(ctx, nil)
	if listErr != nil {
		return app, listErr
	}
	var names []string
	for _, a := range apps {
		if a.Name == what {
			return a, nil
		}
		names = append(names, a.Name)
	}
	return app, fmt.Errorf("application %q does not exist; there are: %s", what, strings.Join(names, ", "))
}

var strange = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

func campaignInit(stdout io.Writer, app chirpstack.Application, out, name, base string, files []string) error {
	if name == "" {
		name = strings.Trim(strange.ReplaceAllString(app.Name, "-"), "-._")
	}
	if out == "" {
		out = name + ".toml"
	}
	// Paths in a campaign file are seen from where the file is.
	relative := func(path string) string {
		if abs, err := filepath.Abs(path); err == nil {
			if dir, err := filepath.Abs(filepath.Dir(out)); err == nil {
				if rel, err := filepath.Rel(dir, abs); err == nil && !strings.HasPrefix(rel, "..") {
					return rel
				}
			}
			return abs
		}
		return path
	}
	var bundles []config.Bundle
	for _, b := range files {
		bundles = append(bundles, config.Bundle{File: relative(b)})
	}
	if base != "" {
		bundles[0].BaseImage = relative(base)
	}
	text := config.CampaignTemplate(name, app.ID, app.Name, bundles)
	if _, doc := config.ParseCampaign(out, []byte(text)); len(doc.Problems) > 0 {
		return doc.Problems.Err()
	}
	if err := mustNotExist(out); err != nil {
		return err
	}
	if err := writeOutput(out, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s written for application %s\ncomplete it, then run: sower plan %s\n", out, app.Name, out)
	return nil
}
