package networkserver

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sower-fuota/sower/simulator/radio"
)

// What the configuration provides can also be made through the API, as far as a client of a new server needs
// it: applications, profiles, gateways, devices, root keys and ABP sessions.

func (x applicationService) Create(_ context.Context, r *api.CreateApplicationRequest) (*api.CreateApplicationResponse, error) {
	a := r.Application
	if a == nil {
		return nil, errMissing("application")
	}
	if err := x.s.knownTenant(a.TenantId); err != nil {
		return nil, err
	}
	if a.Name == "" {
		return nil, errNoName
	}
	app := &Application{ID: x.s.newID("application"), Name: a.Name}
	x.s.apps = append(x.s.apps, app)
	x.s.sortTables()
	return &api.CreateApplicationResponse{Id: app.ID}, nil
}

// Delete takes everything that belongs to the application with it.
func (x applicationService) Delete(_ context.Context, r *api.DeleteApplicationRequest) (*emptypb.Empty, error) {
	id, err := parseUUID(r.Id)
	if err != nil {
		return nil, err
	}
	if x.s.app(id) == nil {
		return nil, errNotFound(id)
	}
	for _, d := range slices.Clone(x.s.devices) {
		if d.app.ID == id {
			x.s.deleteDevice(d)
		}
	}
	x.s.groups = slices.DeleteFunc(x.s.groups, func(g *group) bool { return g.conf.ApplicationId == id })
	x.s.apps = slices.DeleteFunc(x.s.apps, func(a *Application) bool { return a.ID == id })
	x.s.arm()
	return &emptypb.Empty{}, nil
}

func (x profileService) Create(_ context.Context, r *api.CreateDeviceProfileRequest) (*api.CreateDeviceProfileResponse, error) {
	p := r.DeviceProfile
	if p == nil {
		return nil, errMissing("device_profile")
	}
	if err := x.s.knownTenant(p.TenantId); err != nil {
		return nil, err
	}
	if p.Name == "" {
		return nil, errNoName
	}
	i := slices.IndexFunc(x.s.plans, func(plan *radio.Plan) bool { return apiRegion(plan) == p.Region })
	if i < 0 || p.SupportsClassC {
		return nil, status.Errorf(codes.Unimplemented, "only profiles of classes A and B of %s are simulated", x.s.regions())
	}
	profile := &DeviceProfile{
		ID: x.s.newID("device profile"), Name: p.Name, Region: x.s.plans[i].Region, FlushQueueOnActivate: p.FlushQueueOnActivate,
		UplinkInterval: time.Duration(p.UplinkInterval) * time.Second, StatusRequests: int(p.DeviceStatusReqInterval),
		ClassB: p.SupportsClassB, ClassBTimeout: time.Duration(p.ClassBTimeout) * time.Second,
		ClockSync: p.AppLayerParams.GetTs003Version(), ClockSyncPort: uint8(p.AppLayerParams.GetTs003FPort()),
	}
	x.s.profiles = append(x.s.profiles, profile)
	x.s.sortTables()
	return &api.CreateDeviceProfileResponse{Id: profile.ID}, nil
}

func (x profileService) Delete(_ context.Context, r *api.DeleteDeviceProfileRequest) (*emptypb.Empty, error) {
	id, err := parseUUID(r.Id)
	if err != nil {
		return nil, err
	}
	if x.s.profile(id) == nil {
		return nil, errNotFound(id)
	}
	for _, d := range slices.Clone(x.s.devices) {
		if d.profile.ID == id {
			x.s.deleteDevice(d)
		}
	}
	x.s.profiles = slices.DeleteFunc(x.s.profiles, func(p *DeviceProfile) bool { return p.ID == id })
	return &emptypb.Empty{}, nil
}

// Create makes a gateway that attaches by MQTT.
func (x gatewayService) Create(_ context.Context, r *api.CreateGatewayRequest) (*emptypb.Empty, error) {
	g := r.Gateway
	if g == nil {
		return nil, errMissing("gateway")
	}
	id, err := parseEUI(g.GatewayId)
	if err != nil {
		return nil, err
	}
	if err := x.s.knownTenant(g.TenantId); err != nil {
		return nil, err
	}
	if g.Name == "" {
		return nil, errNoName
	}
	if x.s.gatewayByID(id) != nil {
		return nil, x.s.errDuplicate("gateway", "gateway_id")
	}
	x.s.gateways = append(x.s.gateways, &gateway{Gateway: Gateway{ID: id, Name: g.Name}, plan: x.s.plans[0], created: x.s.world.Now()})
	x.s.sortTables()
	return &emptypb.Empty{}, nil
}

// Delete also takes what waits for the gateway out of the queues. What devices remember of it stays.
func (x gatewayService) Delete(_ context.Context, r *api.DeleteGatewayRequest) (*emptypb.Empty, error) {
	id, err := parseEUI(r.GatewayId)
	if err != nil {
		return nil, err
	}
	g := x.s.gatewayByID(id)
	if g == nil {
		return nil, errNotFound(id.String())
	}
	x.s.gateways = slices.DeleteFunc(x.s.gateways, func(other *gateway) bool { return other == g })
	for _, group := range x.s.groups {
		group.gateways = slices.DeleteFunc(group.gateways, func(other lorawan.EUI64) bool { return other == id })
		group.queue = slices.DeleteFunc(group.queue, func(item *groupItem) bool { return item.gateway == id })
	}
	x.s.arm()
	return &emptypb.Empty{}, nil
}

func (x deviceService) Create(_ context.Context, r *api.CreateDeviceRequest) (*emptypb.Empty, error) {
	d, app, profile, err := x.s.deviceOf(r.Device)
	if err != nil {
		return nil, err
	}
	switch {
	case d.Name == "":
		return nil, errNoName
	case x.s.byEUI[d.EUI] != nil:
		return nil, x.s.errDuplicate("device", "dev_eui")
	case x.s.app(app) == nil || x.s.profile(profile) == nil:
		return nil, x.s.errForeignKey("device")
	}
	x.s.addDevice(d, x.s.app(app), x.s.profile(profile))
	x.s.byEUI[d.EUI].describe(r.Device)
	x.s.sortTables()
	return &emptypb.Empty{}, nil
}

// Update replaces everything that a client may say of a device. Keys, session, queue and status stay, and so does its
// membership in groups, whatever application it is in now.
func (x deviceService) Update(_ context.Context, r *api.UpdateDeviceRequest) (*emptypb.Empty, error) {
	d, app, profile, err := x.s.deviceOf(r.Device)
	if err != nil {
		return nil, err
	}
	have := x.s.byEUI[d.EUI]
	switch {
	case have == nil:
		err = lookupError{errAbsent(d.EUI.String())}
	case x.s.app(app) == nil || x.s.profile(profile) == nil:
		err = lookupError{x.s.errForeignKey("device")}
	}
	if d.Name == "" { // looked at before the database is, but after the rights of the key
		if err != nil {
			return nil, lookupError{errNoName}
		}
		return nil, errNoName
	}
	if err != nil {
		return nil, err
	}
	d.Keys = have.Keys
	if x.s.planOf(x.s.profile(profile).Region) != x.s.planOf(have.profile.Region) {
		have.uplinks = metrics{} // which count by the channels of the region
	}
	have.Device, have.app, have.profile, have.updated = d, x.s.app(app), x.s.profile(profile), x.s.world.Now()
	have.describe(r.Device)
	return &emptypb.Empty{}, nil
}

// deviceOf reads a device of a request: what is malformed is refused in the order of the original.
func (s *Server) deviceOf(d *api.Device) (out Device, app, profile string, err error) {
	if d == nil {
		return out, "", "", errMissing("device")
	}
	if out.EUI, err = parseEUI(d.DevEui); err != nil {
		return out, "", "", err
	}
	if app, err = parseUUID(d.ApplicationId); err != nil {
		return out, "", "", err
	}
	if profile, err = parseUUID(d.DeviceProfileId); err != nil {
		return out, "", "", err
	}
	if out.JoinEUI, err = parseEUI(d.JoinEui); err != nil {
		return out, "", "", err
	}
	out.Application, out.Profile, out.Name, out.Tags, out.Disabled = app, profile, d.Name, maps.Clone(d.Tags), d.IsDisabled
	return out, app, profile, nil
}

// describe keeps what matters to nobody but those who read it again.
func (d *device) describe(from *api.Device) {
	d.description, d.variables, d.skipFCntCheck = from.Description, maps.Clone(from.Variables), from.SkipFcntCheck
}

func (x deviceService) Delete(_ context.Context, r *api.DeleteDeviceRequest) (*emptypb.Empty, error) {
	d, err := x.s.device(r.DevEui)
	if err != nil {
		return nil, err
	}
	x.s.deleteDevice(d)
	return &emptypb.Empty{}, nil
}

func (x deviceService) CreateKeys(_ context.Context, r *api.CreateDeviceKeysRequest) (*emptypb.Empty, error) {
	k := r.DeviceKeys
	if k == nil {
		return nil, errMissing("device_keys")
	}
	d, err := x.s.device(k.DevEui)
	if err != nil {
		return nil, err
	}
	var keys Keys
	for _, f := range []struct {
		dst  []byte
		text string
	}{{keys.AppKey[:], k.NwkKey}, {keys.GenAppKey[:], k.GenAppKey}} {
		if err := parseHex(f.dst, f.text); err != nil {
			return nil, err
		}
	}
	if d.Keys != nil {
		return nil, x.s.errDuplicate("device_keys", "dev_eui")
	}
	d.Keys = &keys
	return &emptypb.Empty{}, nil
}

// Activate gives a device a session as ABP does.
func (x deviceService) Activate(_ context.Context, r *api.ActivateDeviceRequest) (*emptypb.Empty, error) {
	a := r.DeviceActivation
	if a == nil {
		return nil, errMissing("device_activation")
	}
	d, err := x.s.device(a.DevEui)
	if err != nil {
		return nil, err
	}
	ses := &session{fCntUp: a.FCntUp, fCntDown: a.NFCntDown}
	for _, f := range []struct {
		dst  []byte
		text string
	}{{ses.addr[:], a.DevAddr}, {ses.nwkSKey[:], a.NwkSEncKey}, {ses.appSKey[:], a.AppSKey}} {
		if err := parseHex(f.dst, f.text); err != nil {
			return nil, err
		}
	}
	x.s.activate(d, ses)
	return &emptypb.Empty{}, nil
}

var errNoName = status.Error(codes.InvalidArgument, "Validation error: name is not set")

// knownTenant is the authorisation of what belongs to a tenant, by an administrator's key: a tenant that does
// not exist is noticed by the database.
func (s *Server) knownTenant(text string) error {
	id, err := parseUUID(text)
	if err == nil && id != s.cfg.Tenant.ID {
		err = s.errForeignKey("tenant")
	}
	return err
}

// addDevice puts a device into the tables, which the caller sorts.
func (s *Server) addDevice(d Device, app *Application, profile *DeviceProfile) {
	dev := &device{Device: d, app: app, profile: profile, updated: s.world.Now(), nonces: map[lorawan.DevNonce]bool{}}
	s.byEUI[d.EUI] = dev
	s.devices = append(s.devices, dev)
}

func (s *Server) deleteDevice(d *device) {
	s.forgetAddress(d)
	delete(s.byEUI, d.EUI)
	s.devices = slices.DeleteFunc(s.devices, func(other *device) bool { return other == d })
	for _, g := range s.groups {
		delete(g.devices, d.EUI)
	}
}

// activate starts a session.
func (s *Server) activate(d *device, ses *session) {
	s.forgetAddress(d)
	d.session, d.classB = ses, false
	s.byAddr[ses.addr] = append(s.byAddr[ses.addr], d)
	if d.profile.FlushQueueOnActivate {
		d.queue = nil
	}
}

func (s *Server) forgetAddress(d *device) {
	if d.session == nil {
		return
	}
	addr := d.session.addr
	s.byAddr[addr] = slices.DeleteFunc(s.byAddr[addr], func(other *device) bool { return other == d })
	if len(s.byAddr[addr]) == 0 {
		delete(s.byAddr, addr)
	}
}

// sortTables restores the order of the tables.
func (s *Server) sortTables() {
	slices.SortStableFunc(s.apps, func(a, b *Application) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(s.profiles, func(a, b *DeviceProfile) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.gateways, func(a, b *gateway) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	slices.SortFunc(s.devices, func(a, b *device) int { return bytes.Compare(a.EUI[:], b.EUI[:]) })
}
