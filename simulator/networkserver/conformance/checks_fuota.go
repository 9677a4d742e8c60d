package conformance

import (
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (s *suite) checkDeployments() error {
	_, err := api.NewFuotaServiceClient(s.Conn).ListDeployments(s.ctx, &api.ListFuotaDeploymentsRequest{ApplicationId: s.site.Application})
	evidence := "deployments are not exercised"
	if status.Code(err) == codes.Unimplemented {
		evidence = "this server has no deployments"
	}
	s.judge("DeleteDeployment leaves the multicast group transmitting", Open, "%s", evidence)
	s.judge("a deployment with fragment_size 0 divides by zero", Open, "%s", evidence)
	return nil
}
