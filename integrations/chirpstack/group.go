package chirpstack

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

var regions = map[airtime.Region]common.Region{
	airtime.EU868: common.Region_EU868, airtime.US915: common.Region_US915, airtime.AU915: common.Region_AU915,
	airtime.AS923: common.Region_AS923, airtime.IN865: common.Region_IN865, airtime.KR920: common.Region_KR920,
}

// schedulerInterval is how often ChirpStack looks at its queues, unless it is configured otherwise.
const schedulerInterval = time.Second

// group is what is remembered of an open group.
type group struct {
	name        string
	application string
	addr        uint32
	region      airtime.Region
	dataRate    int

	next  uint32 // frame counter that the server will use
	doubt uint32 // broadcasts whose answer was lost: the counter may be ahead by as many
}

// OpenGroup implements [network.Network]. Gateways are pinned: left to itself ChirpStack may choose others for
// each message, or none at all without a word. The devices of the group are not made members: with pinned gateways
// membership has no effect, and should the gateways be deleted one day it would make ChirpStack choose some.
func (n *Network) OpenGroup(ctx context.Context, g network.Group) (network.GroupID, error) {
	region, err := n.judge(ctx, g)
	if err != nil {
		return "", err
	}
	want := apiGroup(g, region)
	found, err := n.findGroup(ctx, want)
	if err != nil {
		return "", err
	}
	if found == nil {
		// Not repeatable by itself, but the search above finds what an earlier attempt has made.
		res, err := once(ctx, n, "create group "+g.Name, api.NewMulticastGroupServiceClient(n.conn).Create,
			&api.CreateMulticastGroupRequest{MulticastGroup: want})
		if err != nil {
			return "", err
		}
		found, want.Id = want, res.GetId()
	}
	if err := n.pin(ctx, found, g.Gateways); err != nil {
		return "", err
	}
	id := network.GroupID(found.GetId())
	n.mu.Lock()
	n.groups[id] = &group{name: g.Name, application: g.Application, addr: g.McAddr, region: region, dataRate: g.DataRate, next: found.GetFCnt()}
	n.mu.Unlock()
	return id, nil
}

// apiGroup is how the API describes a group.
func apiGroup(g network.Group, region airtime.Region) *api.MulticastGroup {
	m := &api.MulticastGroup{
		Name: g.Name, ApplicationId: g.Application, Region: regions[region], McAddr: fmt.Sprintf("%08x", g.McAddr),
		McNwkSKey: hex.EncodeToString(g.NwkSKey[:]), McAppSKey: hex.EncodeToString(g.AppSKey[:]),
		GroupType: api.MulticastGroupType_CLASS_C, Dr: uint32(g.DataRate), Frequency: g.Frequency,
		// GPS_TIME would hand each frame over when its time has come, which is too late.
		ClassCSchedulingType: api.MulticastGroupSchedulingType_DELAY,
	}
	if g.Class == network.ClassB {
		m.GroupType, m.ClassBPingSlotPeriodicity = api.MulticastGroupType_CLASS_B, uint32(g.Periodicity)
	}
	if !defended("delay-scheduling") {
		m.ClassCSchedulingType = api.MulticastGroupSchedulingType_GPS_TIME
	}
	return m
}

// judge refuses what ChirpStack would accept and then not carry out, and returns the region of a group.
func (n *Network) judge(ctx context.Context, g network.Group) (airtime.Region, error) {
	bad := func(format string, args ...any) (airtime.Region, error) {
		return 0, fmt.Errorf("chirpstack: group %s: %w: %s", g.Name, network.ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case g.Name == "":
		return bad("it has no name")
	case len(g.Name) > 100:
		return bad("its name has %d bytes, want at most 100", len(g.Name))
	case len(g.Gateways) == 0 && defended("gateways-pinned"):
		return bad("it has no gateways, so nothing would be sent")
	case g.Class != network.ClassC && g.Class != network.ClassB:
		return bad("class %c, want C or B", g.Class)
	case g.Class == network.ClassB && g.Periodicity > 7 && defended("periodicity"):
		return bad("ping-slot periodicity %d, want 0..7", g.Periodicity)
	case g.Frequency == 0 && defended("frequency"):
		return bad("it has no frequency")
	case (g.AppSKey == network.Key{} || g.NwkSKey == network.Key{}) && defended("session-keys"):
		return bad("a session key is all zero")
	}
	gateways, err := n.GatewayStates(ctx, g.Application)
	if err != nil {
		return 0, err
	}
	name := g.Region
	if name == "" && n.cfg.Region != 0 {
		name = n.cfg.Region.String()
	}
	for _, id := range g.Gateways {
		i := slices.IndexFunc(gateways, func(s GatewayState) bool { return s.ID == id })
		switch {
		case i < 0:
			return 0, fmt.Errorf("chirpstack: group %s: gateway %s: %w in the tenant of the application", g.Name, id, network.ErrNotFound)
		case !gateways[i].Online && defended("gateway-online"):
			return bad("gateway %s (%s) is offline; put it into operation or leave it out", id, gateways[i].Name)
		case gateways[i].RegionConfig == "" && defended("gateway-region"):
			return bad("gateway %s (%s) has no region_config_id, and every frame through it would be tried for ever; "+
				"give its packet forwarder the topic prefix of the region or leave it out", id, gateways[i].Name)
		}
		if name == "" {
			name = gateways[i].Region
		}
		if got := gateways[i].Region; got != "" && got != name {
			return bad("gateway %s (%s) is of %s and the group of %s, where a data rate is another one; leave the gateway out",
				id, gateways[i].Name, got, name)
		}
	}
	region, err := airtime.ParseRegion(name)
	switch {
	case err != nil:
		return bad("%s", err)
	case n.cfg.Region != 0 && region != n.cfg.Region:
		return bad("it is of %s, and no other region than %s is to be used", region, n.cfg.Region)
	}
	if _, err := maxPayload(region, g.DataRate); err != nil && defended("data-rate") {
		return bad("%s", err)
	}
	return region, nil
}

// listGroups returns the groups of an application whose names contain a text. The application is always named:
// with a tenant alone the server lists the groups of all tenants.
func (n *Network) listGroups(ctx context.Context, application, search string) ([]*api.MulticastGroupListItem, error) {
	what := "groups of application " + application
	return collect(ctx, what, (*api.MulticastGroupListItem).GetId, func(ctx context.Context, limit, offset uint32) ([]*api.MulticastGroupListItem, uint32, error) {
		page, err := get(ctx, n, what, api.NewMulticastGroupServiceClient(n.conn).List,
			&api.ListMulticastGroupsRequest{ApplicationId: application, Search: search, Limit: limit, Offset: offset})
		return page.GetResult(), page.GetTotalCount(), err
	})
}

// findGroup returns the group of that name; nil if there is none. One with other settings is not taken over.
func (n *Network) findGroup(ctx context.Context, want *api.MulticastGroup) (*api.MulticastGroup, error) {
	groups, err := n.listGroups(ctx, want.GetApplicationId(), want.GetName())
	if err != nil {
		return nil, err
	}
	for _, item := range groups {
		if item.GetName() != want.GetName() && defended("exact-name") || !defended("group-found") {
			continue // the search is for a part of the name
		}
		res, err := get(ctx, n, "group "+want.GetName(), api.NewMulticastGroupServiceClient(n.conn).Get, &api.GetMulticastGroupRequest{Id: item.GetId()})
		if err != nil {
			return nil, err
		}
		have := res.GetMulticastGroup()
		if what := difference(have, want); what != "" && defended("group-settings") {
			return nil, fmt.Errorf("chirpstack: group %s: %w: exists with another %s; another campaign of this name left it, remove it or rename the campaign",
				want.GetName(), network.ErrInvalid, what)
		}
		return have, nil
	}
	return nil, nil
}

// difference names what is not the same in two groups, without its value, which may be a key.
func difference(a, b *api.MulticastGroup) string {
	switch {
	case !strings.EqualFold(a.GetMcAddr(), b.GetMcAddr()):
		return "address"
	case !strings.EqualFold(a.GetMcAppSKey(), b.GetMcAppSKey()) || !strings.EqualFold(a.GetMcNwkSKey(), b.GetMcNwkSKey()):
		return "session key"
	case a.GetGroupType() != b.GetGroupType():
		return "class"
	case a.GetRegion() != b.GetRegion():
		return "region"
	case a.GetDr() != b.GetDr():
		return "data rate"
	case a.GetFrequency() != b.GetFrequency():
		return "frequency"
	case a.GetClassBPingSlotPeriodicity() != b.GetClassBPingSlotPeriodicity():
		return "ping-slot periodicity"
	case a.GetClassCSchedulingType() != b.GetClassCSchedulingType():
		return "scheduling type"
	}
	return ""
}

// pin gives a group exactly these gateways.
func (n *Network) pin(ctx context.Context, g *api.MulticastGroup, gateways []network.EUI64) error {
	client := api.NewMulticastGroupServiceClient(n.conn)
	have, err := n.gateways(ctx, g.GetApplicationId(), g.GetId())
	if err != nil {
		return err
	}
	for _, gw := range gateways {
		if !defended("gateways-pinned") || slices.ContainsFunc(have, func(s GatewayState) bool { return s.ID == gw }) {
			continue
		}
		_, err := get(ctx, n, "gateway "+gw.String()+" of group "+g.GetName(), client.AddGateway,
			&api.AddGatewayToMulticastGroupRequest{MulticastGroupId: g.GetId(), GatewayId: gw.String()})
		// A repetition whose first reply was lost.
		if err != nil && !errors.Is(err, errExists) {
			return err
		}
	}
	for _, s := range have {
		if slices.Contains(gateways, s.ID) {
			continue
		}
		_, err := get(ctx, n, "gateway "+s.ID.String()+" of group "+g.GetName(), client.RemoveGateway,
			&api.RemoveGatewayFromMulticastGroupRequest{MulticastGroupId: g.GetId(), GatewayId: s.ID.String()})
		if err != nil && !errors.Is(err, network.ErrNotFound) {
			return err
		}
	}
	return nil
}

// adopted returns what is remembered of a group; of one that an earlier process has opened, what the server says.
func (n *Network) adopted(ctx context.Context, id network.GroupID) (*group, error) {
	n.mu.Lock()
	g := n.groups[id]
	n.mu.Unlock()
	if g != nil {
		return g, nil
	}
	res, err := get(ctx, n, "group "+string(id), api.NewMulticastGroupServiceClient(n.conn).Get, &api.GetMulticastGroupRequest{Id: string(id)})
	if err != nil {
		return nil, err
	}
	m := res.GetMulticastGroup()
	addr, err := strconv.ParseUint(m.GetMcAddr(), 16, 32)
	if err != nil {
		return nil, fmt.Errorf("chirpstack: group %s: %w: address %q", id, network.ErrInvalid, m.GetMcAddr())
	}
	region, err := airtime.ParseRegion(m.GetRegion().String())
	if err != nil {
		return nil, fmt.Errorf("chirpstack: group %s: %w: %w", id, network.ErrInvalid, err)
	}
	g = &group{name: m.GetName(), application: m.GetApplicationId(), addr: uint32(addr), region: region, dataRate: int(m.GetDr()), next: m.GetFCnt()}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.groups[id] == nil {
		n.groups[id] = g
	}
	return n.groups[id], nil
}

// GroupState implements [network.Network].
func (n *Network) GroupState(ctx context.Context, id network.GroupID) (network.GroupState, error) {
	client := api.NewMulticastGroupServiceClient(n.conn)
	res, err := get(ctx, n, "group "+string(id), client.Get, &api.GetMulticastGroupRequest{Id: string(id)})
	if err != nil {
		return network.GroupState{}, err
	}
	queue, err := get(ctx, n, "queue of group "+string(id), client.ListQueue,
		&api.ListMulticastGroupQueueRequest{MulticastGroupId: string(id)})
	if err != nil {
		return network.GroupState{}, err
	}
	st := network.GroupState{NextFCnt: res.GetMulticastGroup().GetFCnt()}
	for _, item := range queue.GetItems() {
		st.Queued = append(st.Queued, item.GetFCnt())
	}
	return st, nil
}

// Broadcast implements [network.Network]. It answers [network.Busy] while Config.Queue frames wait,
// ErrUnavailable while all gateways of the group are offline, and ErrInvalid once none is left or somebody else
// has used the group. Of an answer that was lost GroupState tells exactly what became of it.
func (n *Network) Broadcast(ctx context.Context, b network.Broadcast) (uint32, error) {
	bad := func(format string, args ...any) (uint32, error) {
		return 0, fmt.Errorf("chirpstack: group %s: %w: %s", b.Group, network.ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case (b.FPort == 0 || b.FPort > 223) && defended("fport"):
		return bad("FPort %d, want 1..223", b.FPort)
	case b.Expires.IsZero() && defended("expiry"):
		return bad("no expiry: without one ChirpStack repeats a frame for ever that no gateway acknowledges")
	}
	g, err := n.adopted(ctx, b.Group)
	if err != nil {
		return 0, err
	}
	switch limit, err := maxPayload(g.region, g.dataRate); {
	case err != nil && defended("data-rate"):
		return bad("%s", err)
	case len(b.Payload) > limit && defended("payload-size"):
		return bad("payload of %d bytes, DR%d carries %d", len(b.Payload), g.dataRate, limit)
	}
	if defended("enqueue-serial") {
		n.enqueue.Lock()
		defer n.enqueue.Unlock()
	}
	if err := n.ready(ctx, b.Group, g); err != nil {
		return 0, err
	}
	item := &api.MulticastGroupQueueItem{MulticastGroupId: string(b.Group), FPort: uint32(b.FPort), Data: b.Payload}
	if !b.Expires.IsZero() {
		item.ExpiresAt = timestamppb.New(b.Expires)
	}
	res, err := once(ctx, n, "group "+string(b.Group), api.NewMulticastGroupServiceClient(n.conn).Enqueue,
		&api.EnqueueMulticastGroupQueueItemRequest{QueueItem: item})
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case errors.Is(err, network.ErrUncertain):
		g.doubt++
		return 0, err
	case err != nil:
		return 0, err
	}
	g.next = res.GetFCnt() + 1
	return res.GetFCnt(), nil
}

// ready reports whether the server would carry a broadcast out.
func (n *Network) ready(ctx context.Context, id network.GroupID, g *group) error {
	st, err := n.GroupState(ctx, id)
	if err != nil {
		return err
	}
	if err := n.count(id, g, st.NextFCnt); err != nil {
		return err
	}
	if len(st.Queued) >= n.cfg.Queue && defended("queue-short") {
		return fmt.Errorf("chirpstack: %w", &network.Busy{Group: id, Waiting: len(st.Queued), After: schedulerInterval})
	}
	if !defended("pins-checked") {
		return nil
	}
	pins, err := n.gateways(ctx, g.application, string(id))
	if err != nil {
		return err
	}
	if len(pins) == 0 {
		return fmt.Errorf("chirpstack: group %s: %w: none of its gateways is left, and ChirpStack would accept frames and send none; were they deleted?",
			g.name, network.ErrInvalid)
	}
	if !slices.ContainsFunc(pins, func(s GatewayState) bool { return s.Online }) {
		return fmt.Errorf("chirpstack: group %s: %w: all of its %d gateways are offline; what is queued now would be sent in one burst when they come back",
			g.name, network.ErrUnavailable, len(pins))
	}
	return nil
}

// count compares the counter of the server with ours.
func (n *Network) count(id network.GroupID, g *group, next uint32) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	ahead := next - g.next
	if (next < g.next || ahead > g.doubt) && defended("counter") {
		return fmt.Errorf("chirpstack: group %s: %w: its frame counter is at %d, want %d: somebody else uses the group %s, end the campaign and begin another",
			g.name, network.ErrInvalid, next, g.next, id)
	}
	g.doubt -= min(ahead, g.doubt)
	g.next = next
	return nil
}

// FlushGroup drops what waits in a group. Its frame counter stays where it is.
func (n *Network) FlushGroup(ctx context.Context, id network.GroupID) error {
	_, err := get(ctx, n, "queue of group "+string(id), api.NewMulticastGroupServiceClient(n.conn).FlushQueue,
		&api.FlushMulticastGroupQueueRequest{MulticastGroupId: string(id)})
	if errors.Is(err, network.ErrNotFound) {
		return nil
	}
	return err
}

// CloseGroup implements [network.Network].
func (n *Network) CloseGroup(ctx context.Context, id network.GroupID) error {
	// Deleting the group deletes its queue.
	_, err := get(ctx, n, "delete group "+string(id), api.NewMulticastGroupServiceClient(n.conn).Delete,
		&api.DeleteMulticastGroupRequest{Id: string(id)})
	n.mu.Lock()
	g := n.groups[id]
	n.mu.Unlock()
	if errors.Is(err, network.ErrDenied) && g != nil && defended("gone-is-closed") {
		// The key of a tenant is told the same of a group that is gone.
		groups, listErr := n.listGroups(ctx, g.application, g.name)
		if listErr == nil && !slices.ContainsFunc(groups, func(m *api.MulticastGroupListItem) bool { return m.GetId() == string(id) }) {
			err = nil
		}
	}
	if err != nil && !errors.Is(err, network.ErrNotFound) {
		return err
	}
	n.mu.Lock()
	delete(n.groups, id)
	n.mu.Unlock()
	return nil
}

// GroupPrefix is how the names of all groups begin that the engine opens.
const GroupPrefix = "sower-"

// Orphan is a group that no campaign uses any more. It costs nothing but is confusing, and what waits in its queue
// is still sent. [Network.CloseGroup] deletes it.
type Orphan struct {
	ID      network.GroupID
	Name    string
	Created time.Time
}

// Orphans returns the groups of an application that carry our prefix and whose names are not among live, the names
// of the groups of all campaigns that have not ended, of every engine that works on this server.
func (n *Network) Orphans(ctx context.Context, application string, live []string) ([]Orphan, error) {
	groups, err := n.listGroups(ctx, application, GroupPrefix)
	if err != nil {
		return nil, err
	}
	var out []Orphan
	for _, g := range groups {
		if strings.HasPrefix(g.GetName(), GroupPrefix) && !slices.Contains(live, g.GetName()) {
			out = append(out, Orphan{ID: network.GroupID(g.GetId()), Name: g.GetName(), Created: g.GetCreatedAt().AsTime()})
		}
	}
	slices.SortFunc(out, func(a, b Orphan) int { return strings.Compare(a.Name+string(a.ID), b.Name+string(b.ID)) })
	return out, nil
}
