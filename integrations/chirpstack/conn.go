package chirpstack

import "google.golang.org/grpc"

// Conn is the connection to the API, which carries the token, for calls that a campaign has no need of.
func (n *Network) Conn() grpc.ClientConnInterface { return n.conn }
