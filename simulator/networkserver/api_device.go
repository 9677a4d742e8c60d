package networkserver

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type deviceService struct {
	api.UnimplementedDeviceServiceServer
	s *Server
}

func sortBy[T any, K cmp.Ordered](list []T, desc bool, key func(T) K) {
	slices.SortStableFunc(list, func(a, b T) int {
		if desc {
			a, b = b, a
		}
		return cmp.Compare(key(a), key(b))
	})
}

// shuffle gives a list the order of a database that was not asked for any: rows that the sorting afterwards does
// not tell apart come in another order at each call.
func shuffle[T any](s *Server, list []T) {
	s.lists++
	for i := len(list) - 1; i > 0; i-- {
		j := s.hash(chanceOrder, s.lists, uint64(i)) % uint64(i+1)
		list[i], list[j] = list[j], list[i]
	}
}

// device finds a device as an administrator's key does.
func (s *Server) device(text string) (*device, error) {
	eui, err := parseEUI(text)
	if err != nil {
		return nil, err
	}
	d := s.byEUI[eui]
	if d == nil {
		return nil, errNotFound(eui.String())
	}
	return d, nil
}

func (x deviceService) Get(_ context.Context, r *api.GetDeviceRequest) (*api.GetDeviceResponse, error) {
	d, err := x.s.device(r.DevEui)
	if err != nil {
		return nil, err
	}
	return &api.GetDeviceResponse{
		Device: &api.Device{
			DevEui: d.EUI.String(), JoinEui: d.JoinEUI.String(), Name: d.Name, ApplicationId: d.app.ID,
			DeviceProfileId: d.profile.ID, IsDisabled: d.Disabled, Tags: maps.Clone(d.Tags), Variables: maps.Clone(d.variables),
			Description: d.description, SkipFcntCheck: d.skipFCntCheck,
		},
		CreatedAt: timestamp(x.s.created), UpdatedAt: timestamp(d.updated), LastSeenAt: timestamp(d.lastSeen),
		DeviceStatus: d.deviceStatus(), ClassEnabled: d.class(),
	}, nil
}

func (x deviceService) List(_ context.Context, r *api.ListDevicesRequest) (*api.ListDevicesResponse, error) {
	app, err := parseUUID(r.ApplicationId)
	if err != nil {
		return nil, err
	}
	var members map[lorawan.EUI64]bool
	if r.MulticastGroupId != "" {
		id, err := parseUUID(r.MulticastGroupId)
		if err != nil {
			return nil, err
		}
		members = map[lorawan.EUI64]bool{}
		if g := x.s.group(id); g != nil {
			members = g.devices
		}
	}
	var profile string
	if r.DeviceProfileId != "" {
		if profile, err = parseUUID(r.DeviceProfileId); err != nil {
			return nil, err
		}
	}
	var all []*device
	for _, d := range x.s.devices {
		if d.app.ID != app || profile != "" && d.profile.ID != profile || members != nil && !members[d.EUI] ||
			!matches(d.Name+" "+d.EUI.String(), r.Search) {
			continue
		}
		tagged := true
		for k, v := range r.Tags {
			tagged = tagged && d.Tags[k] == v
		}
		if tagged {
			all = append(all, d)
		}
	}
	if r.OrderBy != api.ListDevicesRequest_DEV_EUI {
		shuffle(x.s, all)
	}
	switch r.OrderBy {
	case api.ListDevicesRequest_LAST_SEEN_AT:
		sortBy(all, r.OrderByDesc, func(d *device) int64 { return d.lastSeen.UnixNano() })
	case api.ListDevicesRequest_DEVICE_PROFILE_NAME:
		sortBy(all, r.OrderByDesc, func(d *device) string { return d.profile.Name })
	case api.ListDevicesRequest_DEV_EUI:
		sortBy(all, r.OrderByDesc, func(d *device) string { return d.EUI.String() })
	default:
		sortBy(all, r.OrderByDesc, func(d *device) string { return d.Name })
	}
	resp := &api.ListDevicesResponse{TotalCount: uint32(len(all))}
	for _, d := range page(all, r.Limit, r.Offset) {
		resp.Result = append(resp.Result, &api.DeviceListItem{
			DevEui: d.EUI.String(), Name: d.Name, Description: d.description, DeviceProfileId: d.profile.ID, DeviceProfileName: d.profile.Name,
			CreatedAt: timestamp(x.s.created), UpdatedAt: timestamp(d.updated), LastSeenAt: timestamp(d.lastSeen),
			DeviceStatus: d.deviceStatus(), Tags: maps.Clone(d.Tags),
		})
	}
	return resp, nil
}

func (x deviceService) GetKeys(_ context.Context, r *api.GetDeviceKeysRequest) (*api.GetDeviceKeysResponse, error) {
	d, err := x.s.device(r.DevEui)
	if err != nil {
		return nil, err
	}
	if d.Keys == nil {
		return nil, errAbsent(d.EUI.String())
	}
	return &api.GetDeviceKeysResponse{
		DeviceKeys: &api.DeviceKeys{
			DevEui: d.EUI.String(), NwkKey: hexKey(d.Keys.AppKey), AppKey: hexKey(lorawan.AES128Key{}), GenAppKey: hexKey(d.Keys.GenAppKey),
		},
		CreatedAt: timestamp(x.s.created), UpdatedAt: timestamp(x.s.created),
	}, nil
}

func (x deviceService) GetActivation(_ context.Context, r *api.GetDeviceActivationRequest) (*api.GetDeviceActivationResponse, error) {
	d, err := x.s.device(r.DevEui)
	if err != nil {
		return nil, err
	}
	if d.session == nil {
		return &api.GetDeviceActivationResponse{}, nil
	}
	ses := d.session
	return &api.GetDeviceActivationResponse{DeviceActivation: &api.DeviceActivation{
		DevEui: d.EUI.String(), DevAddr: ses.addr.String(), AppSKey: hexKey(ses.appSKey),
		NwkSEncKey: hexKey(ses.nwkSKey), SNwkSIntKey: hexKey(ses.nwkSKey), FNwkSIntKey: hexKey(ses.nwkSKey),
		FCntUp: ses.fCntUp, NFCntDown: ses.fCntDown,
	}}, nil
}

func (x deviceService) Enqueue(_ context.Context, r *api.EnqueueDeviceQueueItemRequest) (*api.EnqueueDeviceQueueItemResponse, error) {
	q := r.QueueItem
	if q == nil {
		return nil, errMissing("queue_item")
	}
	eui, err := parseEUI(q.DevEui)
	if err != nil {
		return nil, err
	}
	if q.IsEncrypted {
		return nil, status.Error(codes.Unimplemented, "encrypted queue items are not simulated")
	}
	fPort := uint8(q.FPort) // the original truncates before it validates
	if fPort == 0 {
		return nil, fPortError
	}
	d := x.s.byEUI[eui]
	if d == nil {
		return nil, lookupError{x.s.errForeignKey("device_queue_item")}
	}
	if r.FlushQueue {
		d.flush(false)
	}
	item := &queueItem{
		id: x.s.newID("queue item"), fPort: fPort, data: slices.Clone(q.Data), confirmed: q.Confirmed, expires: expiry(q.ExpiresAt),
	}
	d.queue = append(d.queue, item)
	x.s.armPing(d)
	return &api.EnqueueDeviceQueueItemResponse{Id: item.id}, nil
}

// flush drops what waits, and with pending what waits for its acknowledgement too.
func (d *device) flush(pending bool) {
	d.queue = slices.DeleteFunc(d.queue, func(q *queueItem) bool { return pending || !q.pending })
}

func (x deviceService) FlushQueue(_ context.Context, r *api.FlushDeviceQueueRequest) (*emptypb.Empty, error) {
	eui, err := parseEUI(r.DevEui)
	if err != nil {
		return nil, err
	}
	if d := x.s.byEUI[eui]; d != nil {
		d.flush(true)
	}
	return &emptypb.Empty{}, nil
}

// GetQueue does not honour count_only, as the original does not.
func (x deviceService) GetQueue(_ context.Context, r *api.GetDeviceQueueItemsRequest) (*api.GetDeviceQueueItemsResponse, error) {
	eui, err := parseEUI(r.DevEui)
	if err != nil {
		return nil, err
	}
	resp := &api.GetDeviceQueueItemsResponse{}
	d := x.s.byEUI[eui]
	if d == nil {
		return resp, nil
	}
	for _, q := range d.queue {
		resp.Result = append(resp.Result, &api.DeviceQueueItem{
			Id: q.id, DevEui: eui.String(), Confirmed: q.confirmed, FPort: uint32(q.fPort), Data: q.data,
			IsPending: q.pending, FCntDown: q.fCntDown, ExpiresAt: timestamp(q.expires),
		})
	}
	resp.TotalCount = uint32(len(resp.Result))
	return resp, nil
}

// metrics counts uplinks per hour and per day (UTC). An hour is forgotten two days after its last uplink, a day two
// months after.
type metrics struct {
	hours, days []bucket // in order
}

type bucket struct {
	start time.Time
	last  time.Time // uplink
	count int
	rssi  int
	snr   float32
	byDR  [16]int
	byHz  []int // by index of the channel
}

func (m *metrics) add(now time.Time, r *reception) {
	plan := r.plan
	for _, list := range []struct {
		buckets *[]bucket
		length  time.Duration
	}{{&m.hours, time.Hour}, {&m.days, 24 * time.Hour}} {
		start := now.UTC().Truncate(list.length)
		if n := len(*list.buckets); n == 0 || !(*list.buckets)[n-1].start.Equal(start) {
			m.forget(now)
			*list.buckets = append(*list.buckets, bucket{start: start, byHz: make([]int, len(plan.Channels()))})
		}
		b := &(*list.buckets)[len(*list.buckets)-1]
		b.last = now
		b.count++
		b.rssi += r.heard[0].signal.RSSI
		b.snr += r.heard[0].signal.SNR
		b.byDR[r.frame.DataRate&15]++
		b.byHz[plan.Channel(r.frame.Frequency)]++
	}
}

func (m *metrics) forget(now time.Time) {
	const day = 24 * time.Hour
	m.hours = slices.DeleteFunc(m.hours, func(b bucket) bool { return now.Sub(b.last) > 2*day })
	m.days = slices.DeleteFunc(m.days, func(b bucket) bool { return now.Sub(b.last) > 62*day })
}

// GetLinkMetrics aggregates per hour and per day; the errors of the original are not counted.
func (x deviceService) GetLinkMetrics(_ context.Context, r *api.GetDeviceLinkMetricsRequest) (*api.GetDeviceLinkMetricsResponse, error) {
	d, err := x.s.device(r.DevEui)
	if err != nil {
		return nil, err
	}
	if r.Start == nil || r.End == nil {
		return nil, status.Error(codes.Internal, "start and end must not be None")
	}
	d.uplinks.forget(x.s.world.Now())
	buckets, length := d.uplinks.hours, time.Hour
	switch r.Aggregation {
	case common.Aggregation_HOUR:
	case common.Aggregation_DAY:
		buckets, length = d.uplinks.days, 24*time.Hour
	default:
		return nil, status.Error(codes.Unimplemented, "only aggregation per hour and per day is simulated")
	}
	metric := func(name string, kind common.MetricKind, labels ...string) *common.Metric {
		m := &common.Metric{Name: name, Kind: kind}
		for _, l := range labels {
			m.Datasets = append(m.Datasets, &common.MetricDataset{Label: l})
		}
		return m
	}
	resp := &api.GetDeviceLinkMetricsResponse{
		RxPackets: metric("Received", common.MetricKind_ABSOLUTE, "rx_count"),
		GwRssi:    metric("RSSI", common.MetricKind_ABSOLUTE, "rssi"),
		GwSnr:     metric("SNR", common.MetricKind_ABSOLUTE, "snr"),
		Errors:    metric("Errors", common.MetricKind_ABSOLUTE),
	}
	plan := x.s.planOf(d.profile.Region)
	var drs []int
	var labels []string
	for i := range 16 {
		if rate, err := plan.Region.DataRate(i); err == nil && rate.Uplink {
			drs = append(drs, i)
			labels = append(labels, strconv.Itoa(i))
		}
	}
	resp.RxPacketsPerDr = metric("Received / DR", common.MetricKind_ABSOLUTE, labels...)
	var channels []string
	for _, f := range plan.Channels() {
		channels = append(channels, strconv.FormatUint(uint64(f), 10))
	}
	resp.RxPacketsPerFreq = metric("Received / frequency", common.MetricKind_ABSOLUTE, channels...)
	end := r.End.AsTime()
	for t := r.Start.AsTime().Truncate(length); !t.After(end); t = t.Add(length) {
		h := bucket{byHz: make([]int, len(channels))}
		for _, have := range buckets {
			if have.start.Equal(t) {
				h = have
			}
		}
		n := float32(max(h.count, 1))
		for _, m := range []*common.Metric{resp.RxPackets, resp.GwRssi, resp.GwSnr, resp.RxPacketsPerDr, resp.RxPacketsPerFreq, resp.Errors} {
			m.Timestamps = append(m.Timestamps, timestamppb.New(t))
		}
		put := func(m *common.Metric, i int, v float32) { m.Datasets[i].Data = append(m.Datasets[i].Data, v) }
		put(resp.RxPackets, 0, float32(h.count))
		put(resp.GwRssi, 0, float32(h.rssi)/n)
		put(resp.GwSnr, 0, h.snr/n)
		for i, dr := range drs {
			put(resp.RxPacketsPerDr, i, float32(h.byDR[dr]))
		}
		for i := range channels {
			put(resp.RxPacketsPerFreq, i, float32(h.byHz[i]))
		}
	}
	for _, m := range []*common.Metric{resp.RxPacketsPerDr, resp.RxPacketsPerFreq} { // what never was has no line
		m.Datasets = slices.DeleteFunc(m.Datasets, func(d *common.MetricDataset) bool {
			return !slices.ContainsFunc(d.Data, func(n float32) bool { return n > 0 })
		})
	}
	return resp, nil
}
