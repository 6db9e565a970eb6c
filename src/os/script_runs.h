// Scripts of recovery plans and drills: programs that go on when who began them is killed, and are
// found again by the next one.
//
// Each run has a handle of the caller's, which is used once, and a directory of that name. The
// program waits for a word from us before it begins, and the word is given when it is noted where
// it can be found; so what is not noted was never begun, and begin() with a handle that was begun
// takes it up. A run of which nobody knows how it ended (the machine went down under it) is
// kOutcomeUnknown.
//
// Any thread may call, for one handle one after the other. Blocking, for milliseconds.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/seams.h"
#include "os/process.h"

namespace farshore {

struct ScriptRequest {
    std::string program;  // an absolute path
    std::vector<std::string> arguments;
    // Beside PATH, LANG and HOME, which are all that it gets of our own.
    std::vector<std::pair<std::string, std::string>> environment;
};

struct ScriptResult {
    std::optional<int> code;  // what it exited with; none: it was ended
    std::string output;       // both streams, the first so many bytes
};

class ScriptRuns {
  public:
    // `root` is made when missing; private to us.
    ScriptRuns(FileSystem& files, std::string root, size_t output_bytes)
        : files_(files), root_(std::move(root)), output_bytes_(output_bytes) {}

    // kNotFound, kForbidden (the program), errors of files and processes: it was not begun.
    Status begin(const std::string& handle, const ScriptRequest& request);
    // None: it runs. kNotFound: nothing was begun with that handle, and can be begun;
    // kOutcomeUnknown.
    Result<std::optional<ScriptResult>> look(const std::string& handle);
    // With all that it has started, but for what has left its process group. look() says so then;
    // or that nobody knows how it ended, when it could not be noted, which is an error.
    Status end(const std::string& handle);
    // Ends it, and forgets it. Ok when there is nothing.
    Status forget(const std::string& handle);

  private:
    std::string directory(const std::string& handle) const { return root_ + "/" + handle; }

    FileSystem& files_;
    std::string root_;
    size_t output_bytes_;
};

}  // namespace farshore
