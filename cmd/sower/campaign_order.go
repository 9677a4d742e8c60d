package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/plan"
)

func newCampaignCreateCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "create CAMPAIGN.toml",
		Short: "plan a campaign and hand it to sower serve, as a draft",
		Long: `create sends a campaign file, and the bundles and base images that it names, to sower serve, which plans the
campaign and keeps it as a draft: nothing is on the air before it is started. Whatever stands against it is listed at
once, with file, line and remedy, and nothing is kept.

The same files again are the same campaign: create may be repeated when its answer was lost.`,
		Example: "  sower campaign create meters.toml\n  sower campaign start meters",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := creation(args[0])
			if err != nil {
				return err
			}
			svc, err := c.campaigns()
			if err != nil {
				return err
			}
			res, err := svc.CreateCampaign(cmd.Context(), connect.NewRequest(req))
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				if err := c.print(cmd.OutOrStdout(), res.Msg); err != nil {
					return err
				}
			}
			if err := problems(res.Msg.Problems); err != nil || c.json {
				return err
			}
			return printCreated(cmd.OutOrStdout(), res.Msg)
		},
	}
	c.add(cmd)
	return cmd
}

// creation gathers a campaign file and what it names.
func creation(path string) (*pb.CreateCampaignRequest, error) {
	text, err := readInput("campaign", path)
	if err != nil {
		return nil, err
	}
	file, _ := config.ParseCampaign(path, text) // the server says what is wrong with it
	req := &pb.CreateCampaignRequest{Name: path, Campaign: text}
	read := beside(path)
	have := map[string]bool{"": true}
	sum := sha256.New()
	fmt.Fprintf(sum, "%d\n%s", len(text), text)
	for _, b := range file.Bundles {
		for _, name := range []string{b.File, b.Raw, b.BaseImage} {
			if have[name] {
				continue
			}
			have[name] = true
			if _, data, err := read(name); err == nil { // else the server lists it with the other problems
				req.Files = append(req.Files, &pb.File{Name: name, Data: data})
				fmt.Fprintf(sum, "%d %s %d\n%s", len(name), name, len(data), data)
			}
		}
	}
	req.RequestId = hex.EncodeToString(sum.Sum(nil))[:32]
	return req, nil
}

func problems(list []*pb.Problem) error {
	var out config.Problems
	for _, p := range list {
		out = append(out, config.Problem{File: p.File, Line: int(p.Line), Text: p.Problem, Remedy: p.Remedy})
	}
	return out.Err()
}

func printCreated(w io.Writer, res *pb.CreateCampaignResponse) error {
	var sc plan.Schedule
	if err := json.Unmarshal([]byte(res.Schedule), &sc); err != nil {
		return fmt.Errorf("schedule: %w", err)
	}
	var text bytes.Buffer
	printSchedule(&text, sc)
	if res.Campaign.Phase != campaign.PhaseDraft.String() { // the same files were sent before
		fmt.Fprintf(&text, "\nthis campaign exists already\n%s\n", headline(res.Campaign))
		_, err := w.Write(text.Bytes())
		return err
	}
	fmt.Fprintf(&text, "\n%s is a draft; nothing is sent yet\n", res.Campaign.Id)
	if n := res.Campaign.ApprovalsMissing; n > 0 {
		fmt.Fprintf(&text, "it needs %d approvals before it may start: sower campaign approve %s\n", n, res.Campaign.Id)
	} else {
		fmt.Fprintf(&text, "start it with: sower campaign start %s\n", res.Campaign.Id)
	}
	_, err := w.Write(text.Bytes())
	return err
}

// order is a verb that tells a campaign what to do.
type order struct {
	use, short string
	text       string // flag that goes with it
	usage      string
	required   bool
	do         func(ctx context.Context, svc sowerv1connect.CampaignServiceClient, id, text string) (*pb.Campaign, error)
}

// orders are the verbs that tell a campaign what to do.
var orders = []order{
	{use: "approve", short: "approve a draft, or the next wave at a gate", text: "note", usage: "what was looked at; stands in the audit log",
		do: func(ctx context.Context, svc sowerv1connect.CampaignServiceClient, id, text string) (*pb.Campaign, error) {
			res, err := svc.ApproveCampaign(ctx, connect.NewRequest(&pb.ApproveCampaignRequest{Id: id, Note: text}))
			if err != nil {
				return nil, err
			}
			return res.Msg.Campaign, nil
		}},
	{use: "start", short: "start a draft",
		do: func(ctx context.Context, svc sowerv1connect.CampaignServiceClient, id, _ string) (*pb.Campaign, error) {
			res, err := svc.StartCampaign(ctx, connect.NewRequest(&pb.StartCampaignRequest{Id: id}))
			if err != nil {
				return nil, err
			}
			return res.Msg.Campaign, nil
		}},
	{use: "pause", short: "stop all sending, and drop what waits in queues", text: "reason", usage: "why; stands in the audit log", required: true,
		do: func(ctx context.Context, svc sowerv1connect.CampaignServiceClient, id, text string) (*pb.Campaign, error) {
			res, err := svc.PauseCampaign(ctx, connect.NewRequest(&pb.PauseCampaignRequest{Id: id, Reason: text}))
			if err != nil {
				return nil, err
			}
			return res.Msg.Campaign, nil
		}},
	{use: "resume", short: "go on after a pause",
		do: func(ctx context.Context, svc sowerv1connect.CampaignServiceClient, id, _ string) (*pb.Campaign, error) {
			res, err := svc.ResumeCampaign(ctx, connect.NewRequest(&pb.ResumeCampaignRequest{Id: id}))
			if err != nil {
				return nil, err
			}
			return res.Msg.Campaign, nil
		}},
	{use: "abort", short: "end a campaign: nothing more is sent, groups are deleted on server and devices", text: "reason", usage: "why; stands in the audit log", required: true,
		do: func(ctx context.Context, svc sowerv1connect.CampaignServiceClient, id, text string) (*pb.Campaign, error) {
			res, err := svc.AbortCampaign(ctx, connect.NewRequest(&pb.AbortCampaignRequest{Id: id, Reason: text}))
			if err != nil {
				return nil, err
			}
			return res.Msg.Campaign, nil
		}},
}

func orderCommands() []*cobra.Command {
	var out []*cobra.Command
	for _, o := range orders {
		out = append(out, o.command())
	}
	return out
}

func (o order) command() *cobra.Command {
	var c client
	var text string
	cmd := &cobra.Command{
		Use:   o.use + " CAMPAIGN",
		Short: o.short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.required && text == "" {
				return usagef("campaign %s: --%s is missing", o.use, o.text)
			}
			svc, err := c.campaigns()
			if err != nil {
				return err
			}
			got, err := o.do(cmd.Context(), svc, args[0], text)
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return c.print(cmd.OutOrStdout(), got)
			}
			fmt.Fprintln(cmd.OutOrStdout(), headline(got))
			return nil
		},
	}
	c.add(cmd)
	if o.text != "" {
		cmd.Flags().StringVar(&text, o.text, "", o.usage)
	}
	return cmd
}
