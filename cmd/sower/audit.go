package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
	shell "github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
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
			err = eachAudit(cmd.Context(), svc, func(e *pb.AuditEntry) error {
				all.Entries = append(all.Entries, e)
				return nil
			})
			if err != nil {
				return c.explain(err)
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
	cmd.AddCommand(newAuditVerifyCommand(), newAuditExportCommand())
	return cmd
}

// eachAudit calls f with each entry of the audit log.
func eachAudit(ctx context.Context, svc sowerv1connect.AdminServiceClient, f func(*pb.AuditEntry) error) error {
	for after := uint64(0); ; {
		res, err := svc.ListAudit(ctx, connect.NewRequest(&pb.ListAuditRequest{After: after, PageSize: 1000}))
		if err != nil || len(res.Msg.Entries) == 0 {
			return err
		}
		for _, e := range res.Msg.Entries {
			if err := f(e); err != nil {
				return err
			}
			after = e.Seq
		}
	}
}

func newAuditExportCommand() *cobra.Command {
	var c client
	var out string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "write the audit log for an archive",
		Long: `export writes the audit log as JSON lines, one entry each, with the hash chain that runs through all of them, which it
checks on the way. "sower audit verify FILE" checks such a file without asking anybody. The audit log of the server is
never cut.`,
		Example: "  sower audit export -o audit.jsonl\n  sower audit verify audit.jsonl",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			svc, err := c.admin()
			if err != nil {
				return err
			}
			var text bytes.Buffer
			var head store.AuditHead
			err = eachAudit(cmd.Context(), svc, func(e *pb.AuditEntry) error {
				hash, err := hex.DecodeString(e.Hash)
				if err != nil {
					return fmt.Errorf("entry %d: hash: %w", e.Seq, err)
				}
				a := shell.Audit{Seq: int64(e.Seq), Time: e.Time.AsTime(), By: e.Actor, Action: e.Action, Campaign: e.Object, Text: e.Detail, Hash: hash}
				if err := head.Add(a); err != nil {
					return err
				}
				return json.NewEncoder(&text).Encode(a)
			})
			if err != nil {
				return c.explain(err)
			}
			if out == "" {
				_, err := text.WriteTo(cmd.OutOrStdout())
				return err
			}
			if err := writeOutput(out, text.Bytes(), 0o644); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d entries; head %x\n", out, head.Entries, []byte(head.Hash))
			return nil
		},
	}
	c.add(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default: standard output)")
	return cmd
}

// verifyAuditFile checks what export has written.
func verifyAuditFile(w io.Writer, path string, asJSON bool) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("audit log %s: %w", path, unwrapPath(err))
	}
	defer f.Close()
	var head store.AuditHead
	for lines := json.NewDecoder(f); ; {
		var a shell.Audit
		if err := lines.Decode(&a); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("audit log %s: after entry %d: %w", path, head.Entries, err)
		}
		if err := head.Add(a); err != nil {
			return fmt.Errorf("audit log %s: %w", path, err)
		}
	}
	if head.Entries == 0 {
		return fmt.Errorf("audit log %s: it has no entries", path)
	}
	if asJSON {
		return printJSON(w, head)
	}
	fmt.Fprintf(w, "%s: %d entries hold; head %x\n", path, head.Entries, []byte(head.Hash))
	return nil
}

func newAuditVerifyCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "compute the hash chain of the audit log anew, or that of an export offline",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return verifyAuditFile(cmd.OutOrStdout(), args[0], c.json)
			}
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
