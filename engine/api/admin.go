package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
)

// admin is the AdminService.
type admin struct{ *Server }

// alive reports whether the engine answers.
func (s *Server) alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	return s.cfg.Engine.View(ctx, func([]*campaign.Campaign) {})
}

func (s admin) Health(ctx context.Context, _ *connect.Request[pb.HealthRequest]) (*connect.Response[pb.HealthResponse], error) {
	if err := s.alive(ctx); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("the engine does not answer: %w", err))
	}
	return connect.NewResponse(&pb.HealthResponse{Ok: true, Version: s.cfg.Version}), nil
}

func (s admin) ListAudit(ctx context.Context, req *connect.Request[pb.ListAuditRequest]) (*connect.Response[pb.ListAuditResponse], error) {
	size, err := pageSize(req.Msg.PageSize, 100, 1000)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Store.Audit(ctx, int64(req.Msg.After), size)
	if err != nil {
		return nil, err
	}
	res := &pb.ListAuditResponse{}
	for _, a := range list {
		res.Entries = append(res.Entries, &pb.AuditEntry{Seq: uint64(a.Seq), Time: stamp(a.Time), Actor: a.By, Action: a.Action,
			Object: a.Campaign, Detail: a.Text, Hash: fmt.Sprintf("%x", []byte(a.Hash))})
	}
	return connect.NewResponse(res), nil
}

func (s admin) VerifyAudit(ctx context.Context, _ *connect.Request[pb.VerifyAuditRequest]) (*connect.Response[pb.VerifyAuditResponse], error) {
	head, err := s.cfg.Store.VerifyAudit(ctx)
	res := &pb.VerifyAuditResponse{Ok: err == nil, Entries: uint64(head.Entries), Head: fmt.Sprintf("%x", []byte(head.Hash))}
	if err != nil {
		if !errors.Is(err, store.ErrTampered) {
			return nil, err
		}
		res.Problem = err.Error()
	}
	return connect.NewResponse(res), nil
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (s admin) Backup(ctx context.Context, req *connect.Request[pb.BackupRequest]) (*connect.Response[pb.BackupResponse], error) {
	if s.cfg.BackupDir == "" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("the server has no folder for backups; name one with backup_dir under [server] in sower.toml"))
	}
	name := req.Msg.Name
	if name == "" {
		name = "sower-" + s.cfg.Now().UTC().Format("20060102-150405") + ".db"
	}
	if !nameForm.MatchString(name) || strings.Contains(name, "..") {
		return nil, invalid("name %q, want up to 64 letters, digits, points, dashes or underscores", name)
	}
	path := filepath.Join(s.cfg.BackupDir, name)
	if _, err := os.Lstat(path); err == nil {
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("backup %s exists already", path))
	}
	if err := s.cfg.Store.Backup(ctx, path); errors.Is(err, fs.ErrNotExist) {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("the folder for backups, %s, does not exist on the server; make it for the user that runs sower serve, with mode 0700", s.cfg.BackupDir))
	} else if err != nil {
		return nil, err
	}
	if err := s.cfg.Store.AddAudit(ctx, run.Audit{Time: s.cfg.Now().UTC(), By: holder(ctx).name, Action: "backup", Text: name}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.BackupResponse{Path: path}), nil
}

func (s admin) CreateToken(ctx context.Context, req *connect.Request[pb.CreateTokenRequest]) (*connect.Response[pb.CreateTokenResponse], error) {
	role := Role(req.Msg.Role)
	if req.Msg.Role < pb.Role_ROLE_VIEWER || req.Msg.Role > pb.Role_ROLE_ADMIN {
		return nil, invalid("role %d, want ROLE_VIEWER, ROLE_OPERATOR or ROLE_ADMIN", req.Msg.Role)
	}
	if !nameForm.MatchString(req.Msg.Name) || req.Msg.Name == "sower" {
		return nil, invalid("name %q, want up to 64 letters, digits, points, dashes or underscores, and not \"sower\", which is the engine itself", req.Msg.Name)
	}
	t := store.Token{Name: req.Msg.Name, Role: role.String(), Created: s.cfg.Now().UTC()}
	if req.Msg.Lifetime != nil {
		d := req.Msg.Lifetime.AsDuration()
		if !req.Msg.Lifetime.IsValid() || d < time.Minute {
			return nil, invalid("lifetime %s, want a minute or more", d)
		}
		t.Expires = t.Created.Add(d)
	}
	token, t, err := addToken(ctx, s.cfg.Store, t, holder(ctx).name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.CreateTokenResponse{Token: token, Info: tokenInfo(t)}), nil
}

func tokenInfo(t store.Token) *pb.Token {
	role, _ := ParseRole(t.Role)
	return &pb.Token{Id: t.ID, Name: t.Name, Role: pb.Role(role), Created: stamp(t.Created), Expires: stamp(t.Expires), Revoked: stamp(t.Revoked)}
}

func (s admin) ListTokens(ctx context.Context, _ *connect.Request[pb.ListTokensRequest]) (*connect.Response[pb.ListTokensResponse], error) {
	list, err := s.cfg.Store.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	res := &pb.ListTokensResponse{}
	for _, t := range list {
		res.Tokens = append(res.Tokens, tokenInfo(t))
	}
	return connect.NewResponse(res), nil
}

func (s admin) RevokeToken(ctx context.Context, req *connect.Request[pb.RevokeTokenRequest]) (*connect.Response[pb.RevokeTokenResponse], error) {
	list, err := s.cfg.Store.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	var found *store.Token
	admins := 0 // that remain for good
	for i, t := range list {
		if t.ID == req.Msg.Id {
			found = &list[i]
		} else if t.Role == Admin.String() && t.Revoked.IsZero() && t.Expires.IsZero() {
			admins++
		}
	}
	switch {
	case found == nil:
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no token %q", req.Msg.Id))
	case !found.Revoked.IsZero():
		return connect.NewResponse(&pb.RevokeTokenResponse{}), nil
	case admins == 0 && found.Role == Admin.String():
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("token %s is the last of an administrator; create another one first", found.ID))
	}
	if err := s.cfg.Store.RevokeToken(ctx, found.ID, s.cfg.Now().UTC(), holder(ctx).name); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RevokeTokenResponse{}), nil
}
