package main

import (
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
)

func newCampaignOrphansCommand() *cobra.Command {
	var c client
	var at siteFlags
	var remove []string
	cmd := &cobra.Command{
		Use:   "orphans [APPLICATION]...",
		Short: "find multicast groups that no campaign uses any more, and delete them",
		Long: `orphans lists the multicast groups on the network server whose names begin with "` + chirpstack.GroupPrefix + `" and that belong to no campaign of
sower serve, as a restored backup may leave them: what waits in their queues is still sent. With --delete it deletes those
that are named. A group of another sower serve on the same network server is listed, too: look before you delete.`,
		Example: "  sower campaign orphans\n  sower campaign orphans --delete sower-meters.2",
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := c.campaigns()
			if err != nil {
				return err
			}
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.nw.Close()
			apps, err := s.applications(cmd.Context(), args)
			if err != nil {
				return err
			}
			found := []orphan{}
			for _, app := range apps {
				list, err := s.nw.Orphans(cmd.Context(), app.ID, nil)
				if err != nil {
					return err
				}
				for _, o := range list {
					found = append(found, orphan{app.ID, o.Name, o.Created, slices.Contains(remove, o.Name), o.ID})
				}
			}
			// Asked afterwards: a campaign that has begun meanwhile keeps its groups.
			live, err := liveGroups(cmd.Context(), svc)
			if err != nil {
				return c.explain(err)
			}
			found = slices.DeleteFunc(found, func(o orphan) bool { return live[o.Name] })
			for _, name := range remove {
				if !slices.ContainsFunc(found, func(o orphan) bool { return o.Name == name }) {
					return fmt.Errorf("there is no orphan called %s; sower campaign orphans lists them", name)
				}
			}
			for _, o := range found {
				if !o.Deleted {
					continue
				}
				if err := s.nw.CloseGroup(cmd.Context(), o.id); err != nil {
					return err
				}
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), found)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "GROUP\tAPPLICATION\tCREATED\t")
			for _, o := range found {
				state := ""
				if o.Deleted {
					state = "deleted"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", o.Name, o.Application, stamp(o.Created), state)
			}
			return w.Flush()
		},
	}
	c.add(cmd)
	cmd.Flags().StringVar(&at.file, "config", settingsFile, "settings, which name the network server")
	cmd.Flags().StringArrayVar(&remove, "delete", nil, "group to delete, with what waits in its queue; may be repeated")
	return cmd
}

// orphan is a group that no campaign uses.
type orphan struct {
	Application string    `json:"application"`
	Name        string    `json:"group"`
	Created     time.Time `json:"created"`
	Deleted     bool      `json:"deleted"`
	id          network.GroupID
}

// liveGroups returns the names of the groups of all campaigns that have not ended.
func liveGroups(ctx context.Context, svc sowerv1connect.CampaignServiceClient) (map[string]bool, error) {
	live := map[string]bool{}
	err := pages(func(token string) (string, error) {
		list, err := svc.ListCampaigns(ctx, connect.NewRequest(&pb.ListCampaignsRequest{PageToken: token}))
		if err != nil {
			return "", err
		}
		for _, k := range list.Msg.Campaigns {
			if k.Phase == campaign.PhaseEnded.String() {
				continue
			}
			res, err := svc.GetCampaign(ctx, connect.NewRequest(&pb.GetCampaignRequest{Id: k.Id}))
			if err != nil {
				return "", err
			}
			for _, w := range res.Msg.Campaign.Waves {
				for _, s := range w.Sessions {
					live[chirpstack.GroupPrefix+s.Id] = true
				}
			}
		}
		return list.Msg.NextPageToken, nil
	})
	return live, err
}
