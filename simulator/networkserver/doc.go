// Package networkserver is a network server with the public face of ChirpStack v4: its protobuf API over gRPC
// and its device events over MQTT, both on real loopback sockets, in front of gateways on a simulated radio in
// virtual time. A client cannot tell it from a real server by what this package implements: applications,
// device profiles, gateways, devices with their queues, multicast groups of classes B and C with their queue and
// scheduler, and OTAA, ABP, LoRaWAN 1.0.x frames, counters, MICs and encryption below them. Gateways that are not
// on the simulated radio attach through ChirpStack's MQTT gateway backend, as those of package gateway do. Of those
// on the simulated radio the topics of the backend tell what is said about multicast frames, for clients that listen
// there to learn the fate of each.
//
// Virtual time does not move while a gRPC call is in flight or an event published with QoS 1 waits for the
// acknowledgement of its subscriber, so a subscriber acknowledges what it has processed, and calls that follow
// from an event are made before that. Subscribers with QoS 0 are not waited for.
//
// # Traps
//
// What makes a real server hard to use is part of the copy. Some traps are always there, some need a setting or
// an entry in [Faults]; chance is drawn from Config.Seed.
//
//	trap                                            switch it on by                             test
//	a frame for no gateway is accepted and counted  a group without pins and heard members      TestEnqueueWithoutGatewayIsSilent
//	pins missing: gateways by the members' last     always; the dice fall anew at each call     TestGatewaysAreChosenByTheMembersUplinks,
//	uplinks, in any order                                                                       TestAutomaticGateways
//	a gateway of those was deleted: Internal        GatewayService.Delete                       TestAutomaticGateways
//	f_cnt of a request is ignored                   always                                      TestClassCSpacing
//	each gateway costs a margin                     always                                      TestEachGatewayCostsAMargin
//	an empty queue sends at once                    always                                      TestClassCSpacing
//	GPS_TIME comes too late                         the group's scheduling type                 TestGPSTimeIsTooLate
//	class B: slots, and the queue empties before    the group's type                            TestClassBSlots
//	class B with periodicity above 7: Internal      the group's periodicity                     TestClassBSlots
//	expired and oversize frames vanish              expires_at, data                            TestExpiredAndOversizeFramesVanish
//	an unknown data rate is tried for ever          the group's dr                              TestUnknownDataRateIsTriedForEver
//	a gateway without region: tried for ever        GatewayService.Create, no statistics        TestGatewayThatNeverReported
//	a gateway hears a device of another region:     DeviceProfile.Region                        TestRegionOfTheProfile
//	thrown away
//	the region of a group decides nothing: the      the group's region                          TestRegionOfAGroupIsNeverLookedAt
//	gateways' do
//	no acknowledgement: sent again each lock        Faults.Acks, Lost                           TestFrameIsSentAgainUntilItIsAcknowledged
//	acknowledgement late, or later than 30 s        Faults.Acks, Delay                          TestLateAcknowledgement
//	refused by the gateway: deleted silently        Faults.Acks, Status                         TestRefusedFrameIsDeletedSilently
//	nobody but the gateway topics tells of it       always                                      TestGatewayTopics
//	refused unicast item stays, with a log event    Faults.Acks, Status                         TestRefusedUnicastItemStays
//	that does not name it
//	a frame whose acknowledgement is lost goes      Faults.Acks, Lost                           TestUnheardAnswerIsSentAgain
//	again, with the same frame counter
//	refused join-accept: nobody is told             Faults.Acks, Status                         TestRefusedJoinAcceptIsSilent
//	what does not fit RX2 goes there as an empty    an item above its limit                     package conformance
//	frame
//	unicast in ping slots once a device says that   DeviceProfile.ClassB, and the device        TestClassBQueue,
//	it has a beacon                                                                             TestClassBQueueAfterARestart
//	ping slots asked for again, until refused       DeviceProfile.ClassB                        TestPingSlotsAreAskedForInVain
//	often
//	Basics Station never refuses: it loops          Gateway.BasicsStation                       TestBasicsStationNeverRefuses
//	after an outage all at once and in no order     Faults.Outages, PostgreSQL                  TestOutageEndsInABurst
//	no online check: sent to nobody                 Faults.Outages, SQLite                      TestSQLiteSendsToAGatewayThatIsOffline
//	"database is locked"                            Faults.Calls, Locked                        TestCallFaults
//	unavailable before, deadline after the commit   Faults.Calls, Unavailable and ReplyLost     TestCallFaults
//	restart: queues survive, frames on the way not  Faults.Restarts                             TestRestartKeepsTheQueueOnly
//	Update replaces the frame counter               always                                      TestUpdateRollsTheCounterBack
//	DeviceService.Update drops what it is not told  always                                      TestUpdateDevice
//	DevStatusReq takes room from a full message     DeviceProfile.StatusRequests                TestDeviceStatusGoesFirst
//	no battery level: external power, or unknown    the answer of the device                    TestDeviceStatus
//	irregular error codes                           always                                      TestErrorCodes
//	keys of a tenant, keys that only read           Config.Keys                                 TestKeys
//	a key that was deleted: as if it lacked every   Server.SetKey                               TestDeletedKey
//	right
//	words of a violated constraint                  Config.Database                             TestErrorCodes, TestSQLiteErrors
//	limit 0, unstable order, count_only ignored     always; order by anything but the id        TestDeviceListPages,
//	                                                                                            TestListWithoutAnOrderIsUnstable
//	events lost, doubled, unordered                 Faults.Events                               TestEventFaults
//	fields of a newer server, protobuf              Faults.Events.Newer, Config.ProtobufEvents  TestEventEncodings
//	the server answers TS003 itself                 DeviceProfile.ClockSync                     TestOwnClockService
//	the queue is flushed at each join               DeviceProfile.FlushQueueOnActivate          TestFlushOnActivate
//	hourly link metrics vanish after two days       always                                      TestLinkMetricsAreForgotten
//	no keys, GenAppKey zero, no activation          Device.Keys                                 TestErrorCodes, TestWhatIsProvisionedCanBeRead
//
// # Not copied
//
// Users, logins, tenants beyond one, changing what exists other than groups and devices, unicast of class C, ADR and MAC
// commands other than those of status and ping slots, LoRaWAN 1.1, end-to-end encryption, roaming, relays, passive scanning, metrics other than
// link metrics by the hour and the day, streams, the other integrations, FUOTA deployments. These RPCs answer Unimplemented. TS004
// and TS005 of a profile, which the original handles only within its own deployments, are not offered. The text
// of a database error has the words by which clients tell them apart, not all of the original's.
package networkserver
