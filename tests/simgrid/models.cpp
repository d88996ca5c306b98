// Two transfers over equal links, by SimGrid: what `swarmdisk-sim network` says of the same is compared with it.
//
//   models exchange NODES RATE LATENCY BYTES          each node sends BYTES to each other, all at once
//   models chain    NODES RATE LATENCY BYTES CHUNK    node 0 sends BYTES along all the others, which pass on whole chunks
//
// RATE is in bytes a second, LATENCY in seconds one way between two nodes, BYTES and CHUNK in bytes. Prints
// {"seconds": X}: from the start until the last byte is where it belongs.
//
// Every node has one link up and one down. SimGrid's default model multiplies latencies by 13 and bandwidths by 0.97, and
// bounds a flow by a TCP window, from fits to TCP of its time; here it is to be the plain fluid model, in which links are
// shared max-min fairly and latency only delays. So each correction is set to nothing, whatever a version's defaults are.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <simgrid/s4u.hpp>

namespace sg4 = simgrid::s4u;

namespace {

const char* const kSettings[] = {
    "network/model:CM02",          // flows, without fits to a TCP
    "network/bandwidth-factor:1",  // all of a link's rate is for bytes that are counted
    "network/latency-factor:1",    // no slow start in disguise
    "network/weight-S:0",          // shares do not depend on latency
    "network/TCP-gamma:1e18",      // no window
    "network/crosstraffic:0",      // acknowledgements cost nothing
    "network/optim:Full",          // every rate anew at each event: slower, and nothing is left out
};

// A rate that never binds, in bytes a second.
constexpr double kUnlimited = 1e18;

struct Arguments {
  int nodes;
  double rate, latency;
  uint64_t bytes, chunk;
};

sg4::Link* link(sg4::NetZone* zone, const std::string& name, double rate, double latency, bool is_shared) {
  auto* made = zone->create_link(name, rate)->set_latency(latency);
  made->set_sharing_policy(is_shared ? sg4::Link::SharingPolicy::SHARED : sg4::Link::SharingPolicy::FATPIPE);
  made->seal();
  return made;
}

void route(sg4::NetZone* zone, sg4::Host* from, sg4::Host* to, const std::vector<sg4::Link*>& links) {
  std::vector<sg4::LinkInRoute> way;
  for (auto* each : links) way.emplace_back(each);
  zone->add_route(from->get_netpoint(), to->get_netpoint(), nullptr, nullptr, way, false);
}

void exchange(const Arguments& args) {
  auto* zone = sg4::create_full_zone("world");
  std::vector<sg4::Host*> hosts;
  std::vector<sg4::Link*> up, down;
  for (int i = 0; i < args.nodes; i++) {
    hosts.push_back(zone->create_host("host" + std::to_string(i), 1e9)->seal());
    up.push_back(link(zone, "up" + std::to_string(i), args.rate, 0, true));
    down.push_back(link(zone, "down" + std::to_string(i), args.rate, 0, true));
  }
  auto* wire = link(zone, "wire", kUnlimited, args.latency, false);
  for (int i = 0; i < args.nodes; i++)
    for (int j = 0; j < args.nodes; j++)
      if (i != j) route(zone, hosts[i], hosts[j], {up[i], wire, down[j]});
  zone->seal();
  sg4::Actor::create("all", hosts[0], [=] {
    std::vector<sg4::CommPtr> flows;
    for (auto* from : hosts)
      for (auto* to : hosts)
        if (from != to) flows.push_back(sg4::Comm::sendto_async(from, to, args.bytes));
    sg4::Comm::wait_all(flows);
  });
}

// A comm of SimGrid occupies its links one after the other with latency and bytes, so that a sender that waits for its end
// would leave its link idle for the latency of each chunk. Here the latency has a link of its own behind a relay: the node
// sends the next chunk as soon as the one before has left, as over a TCP connection.
void chain(const Arguments& args) {
  auto* zone = sg4::create_full_zone("world");
  std::vector<sg4::Host*> hosts, relays;
  for (int i = 0; i < args.nodes; i++) {
    hosts.push_back(zone->create_host("host" + std::to_string(i), 1e9)->seal());
    relays.push_back(zone->create_host("relay" + std::to_string(i), 1e9)->seal());
  }
  auto* wire = link(zone, "wire", kUnlimited, args.latency, false);
  for (int i = 0; i + 1 < args.nodes; i++) {
    auto* up = link(zone, "up" + std::to_string(i), args.rate, 0, true);
    auto* down = link(zone, "down" + std::to_string(i + 1), args.rate, 0, true);
    route(zone, hosts[i], relays[i], {up, down});
    route(zone, relays[i], hosts[i + 1], {wire});
  }
  zone->seal();
  const uint64_t chunks = (args.bytes + args.chunk - 1) / args.chunk;
  auto length = [=](uint64_t chunk) {
    return chunk + 1 < chunks ? args.chunk : args.bytes - args.chunk * (chunks - 1);
  };
  static char token;
  auto box = [](const std::string& name, int i) { return sg4::Mailbox::by_name(name + std::to_string(i)); };
  for (int i = 0; i < args.nodes; i++) {
    sg4::Actor::create("node", hosts[i], [=] {
      // A comm begins when both ends are there: the receiver is there for all chunks from the start.
      std::vector<char*> tokens(chunks);
      std::vector<sg4::CommPtr> awaited;
      for (uint64_t chunk = 0; i > 0 && chunk < chunks; chunk++)
        awaited.push_back(box("host", i)->get_async<char>(&tokens[chunk]));
      for (uint64_t chunk = 0; chunk < chunks; chunk++) {
        if (i > 0) awaited[chunk]->wait();
        if (i + 1 < args.nodes) box("relay", i)->put(&token, length(chunk));
      }
    });
    if (i + 1 == args.nodes) continue;
    sg4::Actor::create("relay", relays[i], [=] {
      std::vector<sg4::CommPtr> under_way;
      for (uint64_t chunk = 0; chunk < chunks; chunk++) {
        box("relay", i)->get<char>();
        under_way.push_back(box("host", i + 1)->put_async(&token, 1));
      }
      sg4::Comm::wait_all(under_way);
    });
  }
}

int usage() {
  std::fprintf(stderr, "usage: models exchange NODES RATE LATENCY BYTES | models chain NODES RATE LATENCY BYTES CHUNK\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  sg4::Engine engine(&argc, argv);
  xbt_log_control_set("xbt_cfg.thres:warning");
  for (const char* setting : kSettings) sg4::Engine::set_config(setting);
  const bool is_chain = argc == 7 && std::strcmp(argv[1], "chain") == 0;
  const bool is_exchange = argc == 6 && std::strcmp(argv[1], "exchange") == 0;
  if (!is_chain && !is_exchange) return usage();
  Arguments args{std::atoi(argv[2]), std::atof(argv[3]), std::atof(argv[4]), std::strtoull(argv[5], nullptr, 10),
                 is_chain ? std::strtoull(argv[6], nullptr, 10) : 0};
  if (args.nodes < 2 || args.rate <= 0 || args.latency < 0 || args.bytes == 0 || (is_chain && args.chunk == 0))
    return usage();
  is_chain ? chain(args) : exchange(args);
  engine.run();
  std::printf("{\"seconds\": %.9f}\n", sg4::Engine::get_clock());
  return 0;
}
