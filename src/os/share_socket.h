// A socket that programs of another user may open.
#pragma once

#include <string>

#include "base/error.h"

namespace farshore {

// The socket, and the directory that it is in, can be passed and opened by the group's members, and
// nobody else but us; the directory above that one, when it is ours, lets everybody through. Ok
// when all is so already, and when there is no socket. kNotFound (the group), kForbidden (we are
// not in it; a directory above lets nobody through).
Status share_socket(const std::string& socket, const std::string& group);

// Whether that can be done of a socket in a directory in `root`. Changes nothing. Errors as above.
Status can_share(const std::string& root, const std::string& group);

}  // namespace farshore
