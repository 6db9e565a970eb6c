// What the nbdkit plugin serves: the devices of a configuration, with a tap around them or without,
// and the tap's threads. No nbdkit in here; farshore_plugin.cc is the rest.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "block/block_device.h"
#include "capture/tap.h"
#include "capture/tap_config.h"

namespace farshore {

class Server {
  public:
    // Opens everything and fails early; starts no thread, so that the process may fork afterwards.
    static Result<std::unique_ptr<Server>> open(TapConfig config);
    // Puts what an earlier tap left into the log and starts the threads. `on_quit` is called from
    // one of them when the agent asks for the end.
    // `marks`: TapOptions::marks.
    Status start(std::function<void()> on_quit, bool marks);
    ~Server();

    const TapConfig& config() const;
    // nullptr: no such export. "" is the disk of the lowest index, else the index in decimal.
    BlockDevice* device(const std::string& export_name) const;
    Status write(BlockDevice& device, uint64_t offset_bytes, ByteView data, bool through);
    // Without a tap: nullptr.
    Tap* tap() const;

  private:
    struct Impl;
    explicit Server(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace farshore
