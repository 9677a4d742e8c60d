package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sower-fuota/sower/engine/api"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/store"
)

func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "who may use the API, and for what",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenFirstCommand(), newTokenCreateCommand(), newTokenListCommand(), newTokenRevokeCommand())
	return cmd
}

func newTokenFirstCommand() *cobra.Command {
	var at siteFlags
	var lost bool
	cmd := &cobra.Command{
		Use:   "first",
		Short: "make the first token, of an administrator, in an installation without one",
		Long: `first writes into the database of the settings, so it is run by the user that owns it, on the machine of sower serve,
which may be running. With --lost it makes another token when nobody has that of an administrator any more; the lost one
is good until it is revoked.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := at.read()
			if err != nil {
				return err
			}
			made, err := firstToken(cmd.Context(), cmd.OutOrStdout(), s.path(s.Server.Database), lost)
			if err == nil && !made {
				err = errors.New("there is a token already; an administrator makes others with: sower token create; if that token was lost: sower token first --lost")
			}
			return err
		},
	}
	at.add(cmd)
	cmd.Flags().BoolVar(&lost, "lost", false, "make one although there is one")
	return cmd
}

// firstToken prints the first token of an installation, unless it has one that was not lost.
func firstToken(ctx context.Context, stdout io.Writer, database string, lost bool) (made bool, err error) {
	db, err := store.Open(ctx, database, store.Options{})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	token, err := api.FirstToken(ctx, db, time.Now(), lost)
	if err != nil || token == "" {
		return false, err
	}
	fmt.Fprintf(stdout, "API token of an administrator; it is not shown again:\n  export SOWER_TOKEN=%s\n", token)
	return true, nil
}

func newTokenCreateCommand() *cobra.Command {
	var c client
	var role string
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "make a token, and print it once",
		Example: "  sower token create anna --role operator --lifetime 2160h",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := api.ParseRole(role)
			if err != nil {
				return usagef("token create: --role: %w", err)
			}
			svc, err := c.admin()
			if err != nil {
				return err
			}
			req := &pb.CreateTokenRequest{Name: args[0], Role: pb.Role(r)}
			if lifetime != 0 {
				req.Lifetime = durationpb.New(lifetime)
			}
			res, err := svc.CreateToken(cmd.Context(), connect.NewRequest(req))
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return c.print(cmd.OutOrStdout(), res.Msg)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "token %s of %s, %s; it is not shown again:\n  %s\n", res.Msg.Info.Id, args[0], role, res.Msg.Token)
			return nil
		},
	}
	c.add(cmd)
	cmd.Flags().StringVar(&role, "role", "viewer", "viewer reads; operator runs campaigns; admin makes tokens and backups, too")
	cmd.Flags().DurationVar(&lifetime, "lifetime", 0, "until it expires (default: never)")
	return cmd
}

func newTokenListCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list tokens; none is shown itself",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			svc, err := c.admin()
			if err != nil {
				return err
			}
			res, err := svc.ListTokens(cmd.Context(), connect.NewRequest(&pb.ListTokensRequest{}))
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return c.print(cmd.OutOrStdout(), res.Msg)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tNAME\tROLE\tCREATED\tSTATE")
			for _, t := range res.Msg.Tokens {
				state := "valid"
				switch {
				case t.Revoked != nil:
					state = "revoked " + stamp(t.Revoked.AsTime())
				case t.Expires != nil:
					state = "until " + stamp(t.Expires.AsTime())
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", t.Id, t.Name, api.Role(t.Role), stamp(t.Created.AsTime()), state)
			}
			return w.Flush()
		},
	}
	c.add(cmd)
	return cmd
}

func newTokenRevokeCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "make a token useless",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := c.admin()
			if err != nil {
				return err
			}
			_, err = svc.RevokeToken(cmd.Context(), connect.NewRequest(&pb.RevokeTokenRequest{Id: args[0]}))
			return c.explain(err)
		},
	}
	c.add(cmd)
	return cmd
}
