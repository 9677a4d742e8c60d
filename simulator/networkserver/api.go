package networkserver

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/simulator/radio"
)

// newGRPC builds the API server.
func (s *Server) newGRPC() *grpc.Server {
	g := grpc.NewServer(
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := s.begin(stream.Context(), info.FullMethod); err != nil {
				return err
			}
			return next(srv, stream)
		}),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(stream)
			return status.Errorf(codes.Unimplemented, "%s is not simulated", method)
		}),
	)
	api.RegisterInternalServiceServer(g, internalService{})
	if s.hasFuota() {
		api.RegisterFuotaServiceServer(g, fuotaService{})
	}
	api.RegisterTenantServiceServer(g, tenantService{s: s})
	api.RegisterApplicationServiceServer(g, applicationService{s: s})
	api.RegisterDeviceProfileServiceServer(g, profileService{s: s})
	api.RegisterGatewayServiceServer(g, gatewayService{s: s})
	api.RegisterDeviceServiceServer(g, deviceService{s: s})
	api.RegisterMulticastGroupServiceServer(g, multicastService{s: s})
	return g
}

// The codes are ChirpStack's, which are not what one would expect: a malformed UUID is InvalidArgument, a
// malformed EUI, address or key is Internal, and so is a violated constraint of the database.

// errNotFound answers for an object that the call is about, errAbsent for one that is looked for after the call
// has been authorised.
func errNotFound(id string) error { return lookupError{errAbsent(id)} }

func errAbsent(id string) error {
	return status.Errorf(codes.NotFound, "Object does not exist (id: %s)", id)
}

func errMissing(field string) error {
	return status.Errorf(codes.InvalidArgument, "%s is missing", field)
}

func (s *Server) errDuplicate(table, column string) error {
	if s.cfg.Database == SQLite {
		return status.Errorf(codes.Internal, "UNIQUE constraint failed: %s.%s", table, column)
	}
	return status.Errorf(codes.Internal, "duplicate key value violates unique constraint \"%s_pkey\"", table)
}

func (s *Server) errForeignKey(table string) error {
	if s.cfg.Database == SQLite {
		return status.Error(codes.Internal, "FOREIGN KEY constraint failed")
	}
	return status.Errorf(codes.Internal, "insert or update on table %q violates foreign key constraint", table)
}

// parseUUID returns the identifier in its hyphenated lower-case form.
func parseUUID(id string) (string, error) {
	if !validUUID(id) {
		return "", status.Errorf(codes.InvalidArgument, "invalid length: expected length 32 for simple format, found %d", len(id))
	}
	h := strings.ReplaceAll(strings.ToLower(id), "-", "")
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
}

// parseHex fills dst. The empty string gives zeros, as it does in the original.
func parseHex(dst []byte, text string) error {
	if text == "" {
		clear(dst)
		return nil
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return status.Error(codes.Internal, "Invalid character in hex string")
	}
	if len(b) != len(dst) {
		return status.Error(codes.Internal, "Invalid string length")
	}
	copy(dst, b)
	return nil
}

func parseEUI(text string) (e lorawan.EUI64, err error) {
	return e, parseHex(e[:], text)
}

// expiry reads an optional timestamp.
func expiry(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// page cuts a list as the original does: limit 0 gives nothing but the total.
func page[T any](list []T, limit, offset uint32) []T {
	if uint64(offset) >= uint64(len(list)) {
		return nil
	}
	list = list[offset:]
	return list[:min(uint64(limit), uint64(len(list)))]
}

func matches(name, search string) bool {
	return search == "" || strings.Contains(strings.ToLower(name), strings.ToLower(search))
}

// apiRegion is how the API names the region of a plan.
func apiRegion(p *radio.Plan) common.Region {
	return common.Region(common.Region_value[p.Region.String()])
}

type internalService struct {
	api.UnimplementedInternalServiceServer
}

// GetVersion is for users who log in. No API key may call it, that of an administrator neither.
func (internalService) GetVersion(context.Context, *emptypb.Empty) (*api.GetVersionResponse, error) {
	return nil, errForbidden
}

// fuotaService has no deployments.
type fuotaService struct {
	api.UnimplementedFuotaServiceServer
}

func (fuotaService) ListDeployments(context.Context, *api.ListFuotaDeploymentsRequest) (*api.ListFuotaDeploymentsResponse, error) {
	return &api.ListFuotaDeploymentsResponse{}, nil
}

// hasFuota reports whether the version has the service of deployments, which came with 4.12.
func (s *Server) hasFuota() bool {
	var major, minor int
	_, err := fmt.Sscanf(s.cfg.Version, "%d.%d", &major, &minor)
	return err != nil || major > 4 || major == 4 && minor >= 12
}

type tenantService struct {
	api.UnimplementedTenantServiceServer
	s *Server
}

func (x tenantService) List(_ context.Context, r *api.ListTenantsRequest) (*api.ListTenantsResponse, error) {
	t := x.s.cfg.Tenant
	resp := &api.ListTenantsResponse{}
	if matches(t.Name, r.Search) {
		resp.TotalCount = 1
		resp.Result = page([]*api.TenantListItem{{
			Id: t.ID, Name: t.Name, CanHaveGateways: true, CreatedAt: timestamp(x.s.created), UpdatedAt: timestamp(x.s.created),
		}}, r.Limit, r.Offset)
	}
	return resp, nil
}

type applicationService struct {
	api.UnimplementedApplicationServiceServer
	s *Server
}

func (x applicationService) Get(_ context.Context, r *api.GetApplicationRequest) (*api.GetApplicationResponse, error) {
	id, err := parseUUID(r.Id)
	if err != nil {
		return nil, err
	}
	a := x.s.app(id)
	if a == nil {
		return nil, errNotFound(id)
	}
	return &api.GetApplicationResponse{
		Application: &api.Application{Id: a.ID, Name: a.Name, TenantId: x.s.cfg.Tenant.ID},
		CreatedAt:   timestamp(x.s.created), UpdatedAt: timestamp(x.s.created),
	}, nil
}

func (x applicationService) List(_ context.Context, r *api.ListApplicationsRequest) (*api.ListApplicationsResponse, error) {
	tenant, err := parseUUID(r.TenantId)
	if err != nil {
		return nil, err
	}
	var all []*api.ApplicationListItem
	for _, a := range x.s.apps {
		if tenant == x.s.cfg.Tenant.ID && matches(a.Name, r.Search) {
			all = append(all, &api.ApplicationListItem{Id: a.ID, Name: a.Name, CreatedAt: timestamp(x.s.created), UpdatedAt: timestamp(x.s.created)})
		}
	}
	return &api.ListApplicationsResponse{TotalCount: uint32(len(all)), Result: page(all, r.Limit, r.Offset)}, nil
}

type profileService struct {
	api.UnimplementedDeviceProfileServiceServer
	s *Server
}

func (x profileService) Get(_ context.Context, r *api.GetDeviceProfileRequest) (*api.GetDeviceProfileResponse, error) {
	id, err := parseUUID(r.Id)
	if err != nil {
		return nil, err
	}
	p := x.s.profile(id)
	if p == nil {
		return nil, errNotFound(id)
	}
	return &api.GetDeviceProfileResponse{
		DeviceProfile: &api.DeviceProfile{
			Id: p.ID, TenantId: x.s.cfg.Tenant.ID, Name: p.Name,
			Region:     apiRegion(x.s.planOf(p.Region)),
			MacVersion: common.MacVersion_LORAWAN_1_0_4, RegParamsRevision: common.RegParamsRevision_RP002_1_0_3,
			AdrAlgorithmId: "default", SupportsOtaa: true, SupportsClassB: p.ClassB, ClassBTimeout: uint32(p.ClassBTimeout / time.Second), FlushQueueOnActivate: p.FlushQueueOnActivate,
			UplinkInterval: uint32(p.UplinkInterval / time.Second), DeviceStatusReqInterval: uint32(p.StatusRequests),
			AppLayerParams: &api.AppLayerParams{Ts003Version: p.ClockSync, Ts003FPort: uint32(p.clockPort()), Ts004FPort: 201, Ts005FPort: 200},
		},
		CreatedAt: timestamp(x.s.created), UpdatedAt: timestamp(x.s.created),
	}, nil
}

func (x profileService) List(_ context.Context, r *api.ListDeviceProfilesRequest) (*api.ListDeviceProfilesResponse, error) {
	tenant := x.s.cfg.Tenant.ID
	if r.TenantId != "" {
		var err error
		if tenant, err = parseUUID(r.TenantId); err != nil {
			return nil, err
		}
	}
	var all []*api.DeviceProfileListItem
	for _, p := range x.s.profiles {
		if tenant == x.s.cfg.Tenant.ID && matches(p.Name, r.Search) && !r.GlobalOnly {
			all = append(all, &api.DeviceProfileListItem{
				Id: p.ID, Name: p.Name, Region: apiRegion(x.s.planOf(p.Region)), MacVersion: common.MacVersion_LORAWAN_1_0_4,
				RegParamsRevision: common.RegParamsRevision_RP002_1_0_3, SupportsOtaa: true,
				CreatedAt: timestamp(x.s.created), UpdatedAt: timestamp(x.s.created),
			})
		}
	}
	return &api.ListDeviceProfilesResponse{TotalCount: uint32(len(all)), Result: page(all, r.Limit, r.Offset)}, nil
}

// ListAdrAlgorithms is the one call that every key may make, of whatever tenant.
func (profileService) ListAdrAlgorithms(context.Context, *emptypb.Empty) (*api.ListDeviceProfileAdrAlgorithmsResponse, error) {
	return &api.ListDeviceProfileAdrAlgorithmsResponse{TotalCount: 3, Result: []*api.AdrAlgorithmListItem{
		{Id: "default", Name: "Default ADR algorithm (LoRa only)"},
		{Id: "lr_fhss", Name: "LR-FHSS only ADR algorithm"},
		{Id: "lora_lr_fhss", Name: "LoRa & LR-FHSS ADR algorithm"},
	}}, nil
}

type gatewayService struct {
	api.UnimplementedGatewayServiceServer
	s *Server
}

func (x gatewayService) Get(_ context.Context, r *api.GetGatewayRequest) (*api.GetGatewayResponse, error) {
	id, err := parseEUI(r.GatewayId)
	if err != nil {
		return nil, err
	}
	g := x.s.gatewayByID(id)
	if g == nil {
		return nil, errNotFound(id.String())
	}
	return &api.GetGatewayResponse{
		Gateway: &api.Gateway{
			GatewayId: id.String(), Name: g.Name, TenantId: x.s.cfg.Tenant.ID,
			Location: &common.Location{}, StatsInterval: uint32(statsInterval / time.Second),
		},
		CreatedAt: timestamp(g.created), UpdatedAt: timestamp(g.created), LastSeenAt: timestamp(x.s.lastSeen(g)),
	}, nil
}

func (x gatewayService) List(_ context.Context, r *api.ListGatewaysRequest) (*api.ListGatewaysResponse, error) {
	var tenant, groupID string
	var err error
	if r.TenantId != "" {
		if tenant, err = parseUUID(r.TenantId); err != nil {
			return nil, err
		}
	}
	if r.MulticastGroupId != "" {
		if groupID, err = parseUUID(r.MulticastGroupId); err != nil {
			return nil, err
		}
	}
	var all []*api.GatewayListItem
	for _, g := range x.s.gateways {
		if tenant != "" && tenant != x.s.cfg.Tenant.ID || !matches(g.Name+" "+g.ID.String(), r.Search) {
			continue
		}
		if groupID != "" {
			if group := x.s.group(groupID); group == nil || !group.pinned(g.ID) {
				continue
			}
		}
		all = append(all, &api.GatewayListItem{
			TenantId: x.s.cfg.Tenant.ID, GatewayId: g.ID.String(), Name: g.Name, Location: &common.Location{}, DownlinkPriority: downlinkPriority,
			Properties: x.s.properties(g),
			State:      x.s.state(g),
			CreatedAt:  timestamp(g.created), UpdatedAt: timestamp(x.s.created), LastSeenAt: timestamp(x.s.lastSeen(g)),
		})
	}
	if r.OrderBy == api.ListGatewaysRequest_GATEWAY_ID {
		sortBy(all, r.OrderByDesc, func(g *api.GatewayListItem) string { return g.GatewayId })
	} else {
		shuffle(x.s, all)
		sortBy(all, r.OrderByDesc, func(g *api.GatewayListItem) string { return g.Name })
	}
	return &api.ListGatewaysResponse{TotalCount: uint32(len(all)), Result: page(all, r.Limit, r.Offset)}, nil
}

// fPortError is what both queues say of an FPort of 0 or above 255.
var fPortError = status.Error(codes.InvalidArgument, "Validation error: FPort must be between 1 - 255")
