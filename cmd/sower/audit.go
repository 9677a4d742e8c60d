package main

import (
	"fmt"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
)

func newAuditCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "who decided what",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			svc, err := c.admin()
			if err != nil {
				return err
			}
			all := &pb.ListAuditResponse{}
			for after := uint64(0); ; {
				res, err := svc.ListAudit(cmd.Context(), connect.NewRequest(&pb.ListAuditRequest{After: after, PageSize: 1000}))
				if err != nil {
					return c.explain(err)
				}
				if len(res.Msg.Entries) == 0 {
					break
				}
				all.Entries = append(all.Entries, res.Msg.Entries...)
				after = res.Msg.Entries[len(res.Msg.Entries)-1].Seq
			}
			if c.json {
				return c.print(cmd.OutOrStdout(), all)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, e := range all.Entries {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", e.Seq, stamp(e.Time.AsTime()), e.Actor, e.Action, e.Object, e.Detail)
			}
			return w.Flush()
		},
	}
	c.add(cmd)
	cmd.AddCommand(newAuditVerifyCommand())
	return cmd
}

func newAuditVerifyCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "compute the hash chain of the audit log anew",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			svc, err := c.admin()
			if err != nil {
				return err
			}
			res, err := svc.VerifyAudit(cmd.Context(), connect.NewRequest(&pb.VerifyAuditRequest{}))
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				if err := c.print(cmd.OutOrStdout(), res.Msg); err != nil {
					return err
				}
			}
			if !res.Msg.Ok {
				return fmt.Errorf("%s", res.Msg.Problem)
			}
			if !c.json {
				fmt.Fprintf(cmd.OutOrStdout(), "%d entries hold; head %s\n", res.Msg.Entries, res.Msg.Head)
			}
			return nil
		},
	}
	c.add(cmd)
	return cmd
}

func newBackupCommand() *cobra.Command {
	var c client
	var name string
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "have sower serve write a copy of its database",
		Long: `backup has sower serve write a consistent copy of its database into the folder that backup_dir names in sower.toml,
while it works. state.key and evidence.key are not in it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			svc, err := c.admin()
			if err != nil {
				return err
			}
			res, err := svc.Backup(cmd.Context(), connect.NewRequest(&pb.BackupRequest{Name: name}))
			if err != nil {
				return c.explain(err)
			}
			if c.json {
				return c.print(cmd.OutOrStdout(), res.Msg)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s written on the server\n", res.Msg.Path)
			return nil
		},
	}
	c.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "of the file (default: by date)")
	return cmd
}
