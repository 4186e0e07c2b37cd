// libnccl, emulated: averages in place over the ranks of one process, each of a thread of its own.
//
// A reduction is a piece of work of a stream of the emulated driver: it is done when those of all
// ranks have come to the head of their streams. Ranks must agree on how many values they have.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

struct Stream;
extern "C" void emulator_push(Stream *stream, bool (*work)(void *), void *with);
extern "C" bool emulator_has(uintptr_t from, size_t size);

namespace {
enum Error { Success = 0, SystemError = 2, InvalidArgument = 4, InvalidUsage = 5 };
constexpr int FLOAT = 7, AVERAGE = 4;

struct Part { float *values = nullptr; size_t count = 0; bool here = false, gone = false; };
struct Group {
    std::vector<Part> parts;
    int members = 0;
    bool averaged = false;
};
struct Communicator { std::shared_ptr<Group> group; int rank; std::shared_ptr<std::atomic<bool>> aborted; };
struct Reduction { std::shared_ptr<Group> group; int rank; std::shared_ptr<std::atomic<bool>> aborted; float *values; size_t count; };

std::mutex lock;
std::condition_variable came;
std::map<std::string, std::shared_ptr<Group>> groups;
unsigned ids = 0;

// Runs under the driver's lock. Whether the average is there.
bool average(void *with) {
    auto &own = *(Reduction *)with;
    if (*own.aborted) return true;
    Group &group = *own.group;
    Part &part = group.parts[own.rank];
    // Others are still at the one before.
    if (part.gone) return false;
    part.values = own.values, part.count = own.count, part.here = true;
    if (!group.averaged) {
        for (auto &other : group.parts)
            if (!other.here) return false;
        for (auto &other : group.parts)
            if (other.count != own.count) {
                fprintf(stderr, "emulated NCCL: ranks average %zu and %zu values\n", other.count, own.count);
                abort();
            }
        for (size_t i = 0; i < own.count; ++i) {
            float sum = 0;
            for (auto &other : group.parts) sum += other.values[i];
            for (auto &other : group.parts) other.values[i] = sum / group.parts.size();
        }
        group.averaged = true;
    }
    part.gone = true;
    for (auto &other : group.parts)
        if (!other.gone) return true;
    for (auto &other : group.parts) other = {};
    group.averaged = false;
    return true;
}
}

extern "C" {
struct Id { char bytes[128]; };

const char *ncclGetErrorString(int) { return "as told by the emulator"; }
int ncclGetUniqueId(Id *id) {
    std::lock_guard<std::mutex> guard(lock);
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "group %u", ids++);
    return Success;
}
int ncclCommInitRank(Communicator **communicator, int size, Id id, int rank) {
    std::unique_lock<std::mutex> guard(lock);
    if (size < 1 || rank < 0 || rank >= size) return InvalidArgument;
    auto &group = groups[std::string(id.bytes, sizeof id.bytes)];
    if (!group) group = std::make_shared<Group>(), group->parts.resize(size);
    auto own = group;
    if ((int)own->parts.size() != size || own->members == size) return InvalidUsage;
    if (++own->members == size) came.notify_all();
    if (!came.wait_for(guard, std::chrono::seconds(60), [&] { return own->members == size; })) return SystemError;
    *communicator = new Communicator{own, rank, std::make_shared<std::atomic<bool>>(false)};
    return Success;
}
// Reductions that wait for others are over; what they leave is not an average.
int ncclCommAbort(Communicator *communicator) {
    *communicator->aborted = true;
    delete communicator;
    return Success;
}
int ncclCommDestroy(Communicator *communicator) { delete communicator; return Success; }
// What is asked for may be captured and done again and again: it is kept.
int ncclAllReduce(const void *from, void *into, size_t count, int type, int how, Communicator *communicator, Stream *stream) {
    if (from != into || type != FLOAT || how != AVERAGE || !communicator) return InvalidArgument;
    if (!emulator_has((uintptr_t)into, count * sizeof(float))) return InvalidArgument;
    emulator_push(stream, average, new Reduction{communicator->group, communicator->rank, communicator->aborted, (float *)into, count});
    return Success;
}
}
