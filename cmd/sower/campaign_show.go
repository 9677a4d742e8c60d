package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/api"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/session"
)

func newCampaignListCommand() *cobra.Command {
	var c client
	var filter string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list campaigns",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			svc, err := c.campaigns()
			if err != nil {
				return err
			}
			all := &pb.ListCampaignsResponse{}
			err = pages(func(token string) (string, error) {
				res, err := svc.ListCampaigns(cmd.Context(), connect.NewRequest(&pb.ListCampaignsRequest{Filter: filter, PageToken: token}))
				if err != nil {
					return "", err
				}
				all.Campaigns = append(all.Campaigns, res.Msg.Campaigns...)
				return res.Msg.NextPageToken, nil
			})
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return c.print(cmd.OutOrStdout(), all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "CAMPAIGN\tPHASE\tWAVE\tDEVICES\tUPDATED\tFAILED\tCREATED\tBY")
			for _, k := range all.Campaigns {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", k.Id, phase(k), k.Wave, k.Devices, k.Updated, k.Failed, stamp(k.Created.AsTime()), k.CreatedBy)
			}
			return w.Flush()
		},
	}
	c.add(cmd)
	cmd.Flags().StringVar(&filter, "filter", "", "phase=running, application=ID, or a part of the name")
	return cmd
}

func newCampaignStatusCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "status CAMPAIGN",
		Short: "where a campaign stands, by wave and session, version, hardware and cause",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := c.campaigns()
			if err != nil {
				return err
			}
			res, err := svc.GetCampaign(cmd.Context(), connect.NewRequest(&pb.GetCampaignRequest{Id: args[0]}))
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return c.print(cmd.OutOrStdout(), res.Msg.Campaign)
			}
			return printStatus(cmd.OutOrStdout(), res.Msg.Campaign)
		},
	}
	c.add(cmd)
	return cmd
}

// phase is that of a campaign in a list, where one that has stopped must not look like one that is done.
func phase(k *pb.Campaign) string {
	switch {
	case strings.HasPrefix(k.Halted, "aborted"):
		return k.Phase + ", aborted"
	case k.Halted != "":
		return k.Phase + ", halted"
	}
	return k.Phase
}

// headline is a campaign in one line.
func headline(k *pb.Campaign) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", k.Id, k.Phase)
	switch {
	case k.WaitsFor == "gate":
		fmt.Fprintf(&b, " for an approval of wave %s", k.Wave)
	case k.WaitsUntil != nil:
		fmt.Fprintf(&b, " for %s until %s", k.WaitsFor, stamp(k.WaitsUntil.AsTime()))
	case k.ApprovalsMissing > 0:
		fmt.Fprintf(&b, ", %d approvals missing", k.ApprovalsMissing)
	case k.Phase == "running":
		fmt.Fprintf(&b, ", wave %s", k.Wave)
	}
	fmt.Fprintf(&b, "; %d of %d devices updated", k.Updated, k.Devices)
	for _, n := range []struct {
		count uint32
		what  string
	}{{k.Failed, "failed"}, {k.Unproven, "unproven"}, {k.Withheld, "withheld"}} {
		if n.count > 0 {
			fmt.Fprintf(&b, ", %d %s", n.count, n.what)
		}
	}
	if k.Halted != "" {
		fmt.Fprintf(&b, "; %s", k.Halted)
		if k.Cause != "" {
			fmt.Fprintf(&b, " (%s)", k.Cause)
		}
	}
	if k.Forecast != nil {
		fmt.Fprintf(&b, "; finished about %s", stamp(k.Forecast.AsTime()))
	}
	return b.String()
}

func printStatus(out io.Writer, k *pb.Campaign) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", headline(k))
	fmt.Fprintf(&b, "  application %s, created %s by %s", k.Application, stamp(k.Created.AsTime()), k.CreatedBy)
	if len(k.Approvals) > 0 {
		fmt.Fprintf(&b, ", approved by %s", strings.Join(k.Approvals, ", "))
	}
	fmt.Fprintf(&b, "\n  airtime %s per gateway\n", k.Airtime.AsDuration().Round(time.Second/10))
	for _, text := range k.Stopped {
		fmt.Fprintf(&b, "  stopped: %s\n", text)
	}
	b.WriteString(advice(k))
	for _, w := range k.Waves {
		fmt.Fprintf(&b, "\n  wave %s: %d of %d devices updated, %d failed\n", w.Name, w.Updated, w.Devices, w.Failed)
		for _, s := range w.Sessions {
			fmt.Fprintf(&b, "    %s\n", sessionLine(s))
		}
	}
	if _, err := io.WriteString(out, b.String()+"\n"); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  DEVICES\tSTAGE\tFROM VERSION\tHARDWARE\tCAUSE")
	for _, r := range k.Breakdown {
		fmt.Fprintf(w, "  %d\t%s\t%s\t%s\t%s\n", r.Devices, r.Stage, r.FromVersion, r.Hardware, r.Cause)
	}
	return w.Flush()
}

// advice says what to do about a campaign that waits for somebody or in which something has gone wrong; empty: nothing.
func advice(k *pb.Campaign) string {
	var b strings.Builder
	switch {
	case k.Phase == campaign.PhasePaused.String():
		fmt.Fprintf(&b, "  paused; by whom and why: sower audit; to go on: sower campaign resume %s\n", k.Id)
	case k.WaitsFor == campaign.WaitGate.String(), k.ApprovalsMissing > 0:
		fmt.Fprintf(&b, "  to go on: sower campaign approve %s\n", k.Id)
	case k.Phase == campaign.PhaseDraft.String():
		fmt.Fprintf(&b, "  to go on: sower campaign start %s\n", k.Id)
	}
	if k.Halted != "" {
		fmt.Fprintf(&b, "  halted: %s\n", k.Halted)
		if k.Cause == "" && strings.HasPrefix(k.Halted, "session ") {
			b.WriteString("    to do: run sower doctor on the machine of sower serve; the devices are not to blame\n")
		}
		for _, c := range diag.Causes() {
			if c != diag.CauseOK && c.String() == k.Cause {
				fmt.Fprintf(&b, "    %s: %s\n    to do: %s\n", c, c.Meaning(), c.Remedy())
			}
		}
		if k.Phase == campaign.PhaseStopping.String() {
			b.WriteString("    nothing new is sent; devices that were told to reboot are still watched, others are cleaned up\n")
		}
		b.WriteString("    a campaign that has stopped does not go on: mend the cause, and make another one for the devices that are left\n")
	}
	if k.Failed > 0 {
		fmt.Fprintf(&b, "  which have failed: sower campaign devices %s --filter stage=failed\n", k.Id)
	}
	return b.String()
}

// sessionLine is a session in one line.
func sessionLine(s *pb.Session) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, DR%d at %.3f MHz through %d gateway(s)", s.Id, s.Phase, s.DataRate, float64(s.FrequencyHz)/1e6, len(s.Gateways))
	if s.DataSent > 0 {
		fmt.Fprintf(&b, "; sent %d of %d data and %d parity fragments, %d status requests", s.DataSent, s.DataFragments, s.ParitySent, s.StatusSent)
	}
	if s.Refused > 0 {
		fmt.Fprintf(&b, ", %d refused by gateways", s.Refused)
	}
	if s.Phase == "announce" || s.Phase == "window" {
		fmt.Fprintf(&b, "; window %s to %s", stamp(s.WindowStart.AsTime()), stamp(s.WindowEnd.AsTime()))
	}
	var stages []string
	for _, st := range session.Stages() {
		if n := s.Stages[st.String()]; n > 0 {
			stages = append(stages, fmt.Sprintf("%d %s", n, st))
		}
	}
	if len(stages) > 0 {
		fmt.Fprintf(&b, "; %s", strings.Join(stages, ", "))
	}
	return b.String()
}

func newCampaignDevicesCommand() *cobra.Command {
	var c client
	var filter string
	cmd := &cobra.Command{
		Use:   "devices CAMPAIGN",
		Short: "list the devices of a campaign, with stage and cause",
		Example: `  sower campaign devices meters --filter stage=failed
  sower campaign devices meters --filter "wave=canary cause=SILENT_AFTER_BOOT"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := c.campaigns()
			if err != nil {
				return err
			}
			all := &pb.ListDevicesResponse{}
			err = pages(func(token string) (string, error) {
				res, err := svc.ListDevices(cmd.Context(), connect.NewRequest(&pb.ListDevicesRequest{Campaign: args[0], Filter: filter, PageSize: 1000, PageToken: token}))
				if err != nil {
					return "", err
				}
				all.Devices = append(all.Devices, res.Msg.Devices...)
				return res.Msg.NextPageToken, nil
			})
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return c.print(cmd.OutOrStdout(), all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "DEV EUI\tWAVE\tSTAGE\tCAUSE\tVERSION\tLAST UPLINK\tNOTE")
			for _, d := range all.Devices {
				heard := "?"
				if d.LastUplink != nil {
					heard = stamp(d.LastUplink.AsTime())
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.DevEui, d.Wave, d.Stage, d.Cause, cmp.Or(d.Version, "?"), heard, d.Note)
			}
			return w.Flush()
		},
	}
	c.add(cmd)
	cmd.Flags().StringVar(&filter, "filter", "", "stage=, cause=, wave=, session= or version= with a value; several, with blanks between")
	return cmd
}

func newCampaignExplainCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "explain CAMPAIGN DEVEUI",
		Short: "where a device stands, why, what was observed and what to do",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := c.campaigns()
			if err != nil {
				return err
			}
			res, err := svc.Explain(cmd.Context(), connect.NewRequest(&pb.ExplainRequest{Campaign: args[0], DevEui: args[1]}))
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return c.print(cmd.OutOrStdout(), res.Msg)
			}
			return printExplanation(cmd.OutOrStdout(), res.Msg)
		},
	}
	c.add(cmd)
	return cmd
}

func printExplanation(w io.Writer, r *pb.ExplainResponse) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  cause: %s", r.Summary, r.Cause)
	if r.Happened != "" {
		fmt.Fprintf(&b, ", %s", r.Happened)
	}
	fmt.Fprintf(&b, "\n  next:  %s\n\nobserved:\n", r.NextStep)
	for _, e := range r.Evidence {
		fmt.Fprintf(&b, "  %s\n", e)
	}
	b.WriteString("\ntimeline:\n")
	for _, e := range r.Timeline {
		fmt.Fprintf(&b, "  %s  %s\n", e.Time.AsTime().UTC().Format("2006-01-02 15:04:05"), e.Text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func newCampaignEvidenceCommand() *cobra.Command {
	var c client
	var out, verify, signer string
	cmd := &cobra.Command{
		Use:   "evidence CAMPAIGN | --verify FILE",
		Short: "export what a campaign did and what came of it, signed; or check such a file offline",
		Long: `evidence writes JSON lines: campaign file, plan, bundles, the outcome of each device, everything that was sent, heard
and decided. Each line holds the SHA-256 of the line before, the last is signed by Ed25519 with the key beside the
database of sower serve.

With --verify it checks such a file, without asking anybody. --signer compares the public key.`,
		Example: "  sower campaign evidence meters -o meters.jsonl\n  sower campaign evidence --verify meters.jsonl",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (verify != "") == (len(args) == 1) {
				return usagef("campaign evidence: name a campaign, or a file with --verify")
			}
			if verify != "" {
				return verifyEvidence(cmd.OutOrStdout(), verify, signer, c.json)
			}
			svc, err := c.campaigns()
			if err != nil {
				return err
			}
			stream, err := svc.ExportEvidence(cmd.Context(), connect.NewRequest(&pb.ExportEvidenceRequest{Campaign: args[0]}))
			if err != nil {
				return c.explain(err)
			}
			defer stream.Close()
			var text []byte
			for stream.Receive() {
				text = append(text, stream.Msg().Lines...)
			}
			if err := stream.Err(); err != nil {
				return c.explain(err)
			}
			if out == "" {
				_, err := cmd.OutOrStdout().Write(text)
				return err
			}
			return writeOutput(out, text, 0o644)
		},
	}
	c.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&out, "output", "o", "", "file to write (default: standard output)")
	f.StringVar(&verify, "verify", "", "file to check")
	f.StringVar(&signer, "signer", "", "public key that must have signed it, hexadecimal (default: any)")
	return cmd
}

func verifyEvidence(w io.Writer, path, signer string, asJSON bool) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("evidence %s: %w", path, unwrapPath(err))
	}
	defer f.Close()
	info, err := api.VerifyEvidence(f, signer)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if asJSON {
		return printJSON(w, info)
	}
	fmt.Fprintf(w, "%s: %d lines hold: campaign %s, %s, %d of %d devices updated, exported %s\nlog: %s\nsigned by %s\n", path, info.Lines, info.Campaign,
		cmp.Or(info.Phase, "?"), info.Updated, info.Devices, stamp(info.Exported), info.Log, info.Signer)
	return nil
}
