package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Site is what a server is told of a simulated fleet.
type Site struct {
	Name     string // of application and profile
	Region   common.Region
	Gateways []lorawan.EUI64
	Devices  []SiteDevice

	UplinkInterval uint32 // s; 0: 60
}

// SiteDevice is a LoRaWAN 1.0.4 OTAA device.
type SiteDevice struct {
	EUI       lorawan.EUI64
	AppKey    lorawan.AES128Key
	GenAppKey lorawan.AES128Key
}

// Provisioned names what [Provision] has made, for [Provisioned.Remove].
type Provisioned struct {
	Tenant, Application, Profile string // UUIDs
	gateways                     []lorawan.EUI64
	conn                         grpc.ClientConnInterface
	token                        string
}

// Provision makes gateways, profile (class A, no package of the application layer on the server's side),
// application and devices with their keys in the first tenant that may have gateways. token is the API key of an
// administrator; empty: conn carries it. After an error nothing is left that Provision has made. What exists already is an error, with
// the one exception of gateways, which are taken over.
func Provision(ctx context.Context, conn grpc.ClientConnInterface, token string, site Site) (*Provisioned, error) {
	p := &Provisioned{conn: conn, token: token}
	err := p.provision(p.with(ctx), site)
	if err == nil {
		return p, nil
	}
	if rest := p.Remove(context.WithoutCancel(ctx)); rest != nil {
		err = fmt.Errorf("%w; and removing what was made: %w", err, rest)
	}
	return nil, fmt.Errorf("gateway: provisioning %s: %w", site.Name, err)
}

func (p *Provisioned) with(ctx context.Context) context.Context {
	if p.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.token)
}

func (p *Provisioned) provision(ctx context.Context, site Site) error {
	tenants, err := api.NewTenantServiceClient(p.conn).List(ctx, &api.ListTenantsRequest{Limit: 100})
	if err != nil {
		return fmt.Errorf("list tenants: %w", err)
	}
	for _, t := range tenants.Result {
		if t.CanHaveGateways && p.Tenant == "" {
			p.Tenant = t.Id
		}
	}
	if p.Tenant == "" {
		return errors.New("no tenant may have gateways")
	}
	for _, id := range site.Gateways {
		_, err := api.NewGatewayServiceClient(p.conn).Create(ctx, &api.CreateGatewayRequest{Gateway: &api.Gateway{
			GatewayId: id.String(), Name: "sower " + id.String(), TenantId: p.Tenant, StatsInterval: 30, Location: &common.Location{},
		}})
		if err == nil {
			p.gateways = append(p.gateways, id)
			continue
		}
		if _, exists := api.NewGatewayServiceClient(p.conn).Get(ctx, &api.GetGatewayRequest{GatewayId: id.String()}); exists != nil {
			return fmt.Errorf("gateway %s: %w", id, err)
		}
	}
	interval := site.UplinkInterval
	if interval == 0 {
		interval = 60
	}
	profile, err := api.NewDeviceProfileServiceClient(p.conn).Create(ctx, &api.CreateDeviceProfileRequest{DeviceProfile: &api.DeviceProfile{
		TenantId: p.Tenant, Name: site.Name, Region: site.Region, MacVersion: common.MacVersion_LORAWAN_1_0_4,
		RegParamsRevision: common.RegParamsRevision_RP002_1_0_3, AdrAlgorithmId: "default", SupportsOtaa: true, UplinkInterval: interval,
	}})
	if err != nil {
		return fmt.Errorf("device profile: %w", err)
	}
	p.Profile = profile.Id
	app, err := api.NewApplicationServiceClient(p.conn).Create(ctx, &api.CreateApplicationRequest{
		Application: &api.Application{TenantId: p.Tenant, Name: site.Name},
	})
	if err != nil {
		return fmt.Errorf("application: %w", err)
	}
	p.Application = app.Id
	devices := api.NewDeviceServiceClient(p.conn)
	for _, d := range site.Devices {
		if err := patiently(ctx, func() error {
			_, err := devices.Create(ctx, &api.CreateDeviceRequest{Device: &api.Device{
				DevEui: d.EUI.String(), Name: d.EUI.String(), ApplicationId: p.Application, DeviceProfileId: p.Profile, JoinEui: lorawan.EUI64{}.String(),
			}})
			return err
		}); err != nil {
			return fmt.Errorf("device %s: %w", d.EUI, err)
		}
		if err := patiently(ctx, func() error {
			_, err := devices.CreateKeys(ctx, &api.CreateDeviceKeysRequest{DeviceKeys: &api.DeviceKeys{
				DevEui: d.EUI.String(), NwkKey: hex.EncodeToString(d.AppKey[:]), AppKey: hex.EncodeToString(make([]byte, 16)), GenAppKey: hex.EncodeToString(d.GenAppKey[:]),
			}})
			return err
		}); err != nil {
			return fmt.Errorf("keys of device %s: %w", d.EUI, err)
		}
	}
	return nil
}

// patiently repeats a call that nothing has come of because the database of the server was locked: ChirpStack on
// SQLite answers so when others write at the same time.
func patiently(ctx context.Context, call func() error) error {
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		err := call()
		if s := status.Convert(err); s.Code() != codes.Internal || !strings.Contains(s.Message(), "locked") || wait > 2*time.Second {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// Remove deletes what was made, and with the application its devices and groups. What is gone already is no error.
func (p *Provisioned) Remove(ctx context.Context) error {
	ctx = p.with(ctx)
	var errs []error
	note := func(what string, err error) {
		if err != nil && status.Code(err) != codes.NotFound {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	if p.Application != "" {
		_, err := api.NewApplicationServiceClient(p.conn).Delete(ctx, &api.DeleteApplicationRequest{Id: p.Application})
		note("application "+p.Application, err)
	}
	if p.Profile != "" {
		_, err := api.NewDeviceProfileServiceClient(p.conn).Delete(ctx, &api.DeleteDeviceProfileRequest{Id: p.Profile})
		note("device profile "+p.Profile, err)
	}
	for _, id := range p.gateways {
		_, err := api.NewGatewayServiceClient(p.conn).Delete(ctx, &api.DeleteGatewayRequest{GatewayId: id.String()})
		note("gateway "+id.String(), err)
	}
	return errors.Join(errs...)
}
