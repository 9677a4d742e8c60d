package conformance

import (
	"fmt"
	"strings"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// checks run in this order and share the application. The error of one means that the run is over.
var checks = []struct {
	name string
	run  func(*suite) error
}{
	{"joins and uplinks", (*suite).checkJoins},
	{"error codes", (*suite).checkErrors},
	{"a frame for no gateway", (*suite).checkNoGateway},
	{"spacing of class C frames", (*suite).checkSpacing},
	{"the frame counter", (*suite).checkCounter},
	{"frames that are never sent", (*suite).checkDropped},
	{"no acknowledgement", (*suite).checkSilence},
	{"refusals", (*suite).checkRefusals},
	{"GPS_TIME", (*suite).checkGPSTime},
	{"class B", (*suite).checkClassB},
	{"automatic choice of gateways", (*suite).checkAutomatic},
	{"the unicast queue", (*suite).checkUnicast},
	{"battery, margin and changes of a device", (*suite).checkStatus},
	{"answers to an uplink", (*suite).checkAnswers},
	{"a device of class B", (*suite).checkClassBDevice},
	{"records", (*suite).checkRecords},
	{"an outage", (*suite).checkOutage},
	{"many calls at once", (*suite).checkConcurrency},
	{"deployments", (*suite).checkDeployments},
	{"events", (*suite).checkFields},
}

func (s *suite) mc() api.MulticastGroupServiceClient {
	return api.NewMulticastGroupServiceClient(s.Conn)
}

func (s *suite) dev() api.DeviceServiceClient { return api.NewDeviceServiceClient(s.Conn) }

// group makes a multicast group with the first n gateways pinned. All groups have one address, so that the devices
// are members of each; counters go on from group to group, and in the report each begins at 0.
func (s *suite) group(n int, change func(*api.MulticastGroup)) (string, error) {
	s.base += 100
	g := &api.MulticastGroup{
		FCnt: s.base, Name: "conformance", ApplicationId: s.site.Application, McAddr: fmt.Sprintf("%08x", mcAddr),
		McNwkSKey: fmt.Sprintf("%x", mcNwk[:]), McAppSKey: fmt.Sprintf("%x", mcApp[:]), Dr: mcDR, Frequency: mcFreq,
	}
	if change != nil {
		change(g)
	}
	r, err := s.mc().Create(s.ctx, &api.CreateMulticastGroupRequest{MulticastGroup: g})
	if err != nil {
		return "", err
	}
	for _, id := range s.gateways[:n] {
		if _, err := s.mc().AddGateway(s.ctx, &api.AddGatewayToMulticastGroupRequest{MulticastGroupId: r.Id, GatewayId: id.String()}); err != nil {
			return "", err
		}
	}
	return r.Id, nil
}

// over deletes a group and forgets what was heard of it.
func (s *suite) over(group string) error {
	_, err := s.mc().Delete(s.ctx, &api.DeleteMulticastGroupRequest{Id: group})
	s.take()
	for _, a := range s.apps {
		a.take()
	}
	return err
}

func (s *suite) enqueue(group string, data []byte, expires time.Time) (uint32, error) {
	item := &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: 201, Data: data, FCnt: 4711}
	if !expires.IsZero() {
		item.ExpiresAt = timestamppb.New(expires)
	}
	r, err := s.mc().Enqueue(s.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: item})
	if err != nil {
		return 0, err
	}
	return r.FCnt - s.base, nil
}

// queue lists the frame counters that wait.
func (s *suite) queue(group string) (string, error) {
	r, err := s.mc().ListQueue(s.ctx, &api.ListMulticastGroupQueueRequest{MulticastGroupId: group})
	if err != nil {
		return "", err
	}
	var out []string
	for _, q := range r.Items {
		out = append(out, fmt.Sprint(int64(q.FCnt)-int64(s.base)))
	}
	return "[" + strings.Join(out, " ") + "]", nil
}

// drain lets time pass until the queue is empty, a minute and a half at most.
func (s *suite) drain(group string) error {
	for range 90 {
		q, err := s.queue(group)
		if err != nil || q == "[]" {
			return err
		}
		if err := s.pass(time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) next(group string) (uint32, error) {
	r, err := s.mc().Get(s.ctx, &api.GetMulticastGroupRequest{Id: group})
	if err != nil {
		return 0, err
	}
	return r.MulticastGroup.FCnt - s.base, nil
}

// commandsText lists counter, gateway and whole seconds since the first.
func commandsText(cs []command) string {
	var out []string
	for _, c := range cs {
		out = append(out, fmt.Sprintf("%d/g%d@%.0fs", c.fCnt, c.gateway, c.at.Sub(cs[0].at).Seconds()))
	}
	return strings.Join(out, " ")
}
