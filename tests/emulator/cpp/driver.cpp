// libcuda, emulated: host memory behind the driver API. Strict on purpose.
//
// Memory starts as NaN and ends at a page without access; streams are queues that run only when
// somebody waits, in an order drawn from a seed; a launch copies its parameters at once, as the
// real one does; blocks run in a shuffled order.
#include "memory.hpp"
#include "tensor.hpp"
#include <csignal>
#include <cstdlib>
#include <deque>
#include <dlfcn.h>
#include <functional>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <unistd.h>

using namespace emulated;

namespace {
std::recursive_mutex lock;
#define EXCLUSIVE std::lock_guard<std::recursive_mutex> guard(lock)

// ---- which bytes kernels touch ----
struct Touched { const char *kernel; uint64_t read, written; };
std::vector<Touched> touched;
bool watching = false;

// Of kernels that were compiled to be watched: marks what lies in the device's memory.
void touch(const void *at, unsigned size, bool write) {
    if (!watching) return;
    uintptr_t from = (uintptr_t)at;
    auto next = allocations.upper_bound(from);
    if (next == allocations.begin()) return;
    auto &[start, allocation] = *std::prev(next);
    if (from + size > start + allocation.size) return;
    auto &bytes = write ? allocation.written : allocation.read;
    bytes.resize(allocation.size);
    for (unsigned i = 0; i < size; ++i) bytes[from - start + i] = true;
}

// Adds up what the kernel at hand touched.
void settle(const char *kernel) {
    Touched sum{kernel, 0, 0};
    for (auto &[start, allocation] : allocations) {
        sum.read += std::count(allocation.read.begin(), allocation.read.end(), true);
        sum.written += std::count(allocation.written.begin(), allocation.written.end(), true);
        std::fill(allocation.read.begin(), allocation.read.end(), false);
        std::fill(allocation.written.begin(), allocation.written.end(), false);
    }
    touched.push_back(sum);
}

// ---- what is asked for, while somebody listens ----
enum Kind { Allocated, CopyIn, CopyOut, CopyOver, Clear, Launched, Captured, Replayed, Recorded, Waited, Averaged };
struct Call {
    int kind;
    const char *kernel;
    uint64_t bytes, blocks, stream, thread;
    bool captured, pinned;
};
std::vector<Call> calls;
bool listening = false;
std::map<uintptr_t, size_t> pinned;

bool is_pinned(const void *at, size_t size) {
    auto next = pinned.upper_bound((uintptr_t)at);
    return next != pinned.begin() && (uintptr_t)at + size <= std::prev(next)->first + std::prev(next)->second;
}

// ---- streams, events, graphs ----
// Work of a stream; says whether it could be done.
using Work = std::function<bool()>;

// What was captured: a branch for each stream that took part, the first that of the stream where
// it began. Branches wait for each other by marks, which a launch takes back.
struct Marks { std::vector<char> set; uint64_t started = 0; };
struct Graph {
    std::vector<std::vector<Work>> branches{1};
    std::shared_ptr<Marks> marks = std::make_shared<Marks>();
    std::vector<struct Stream *> sides;
    uint64_t launched = 0;
};
struct Capture {
    std::unique_ptr<Graph> graph = std::make_unique<Graph>();
    // Streams, one for each branch; the marks that each branch set last and that are behind all of
    // its work, or none; the marks that the first branch has waited for.
    std::vector<struct Stream *> streams;
    std::vector<size_t> ends;
    std::vector<size_t> joined;
    pthread_t thread = pthread_self();
};
constexpr size_t NONE = -1;
struct Stream {
    std::deque<Work> queue;
    std::shared_ptr<Capture> capture;
    size_t branch = 0;
    // Ranks are threads, with streams of their own.
    pthread_t owner = pthread_self();
};
struct Event {
    uint64_t recorded = 0, done = 0;
    // Of a record that was captured.
    std::weak_ptr<Capture> capture;
    bool captured = false;
    size_t mark = NONE;
};

Stream null_stream;
std::vector<Stream *> streams{&null_stream};
Error sticky = Success;
// Some work waits for what another thread has yet to ask for.
bool elsewhere = false;

Stream *of(Stream *stream) {
    // 1 and 2 are the legacy and the per-thread default streams.
    return (uintptr_t)stream <= 2 ? &null_stream : stream;
}

void push(Stream *stream, Work work) {
    stream = of(stream);
    if (auto &capture = stream->capture) {
        capture->graph->branches[stream->branch].push_back(std::move(work));
        capture->ends[stream->branch] = NONE;
    } else stream->queue.push_back(std::move(work));
}

void note(Kind kind, Stream *stream, size_t bytes = 0, const void *host = nullptr, const char *kernel = nullptr,
          size_t blocks = 0) {
    if (!listening) return;
    stream = of(stream);
    calls.push_back({kind, kernel, bytes, blocks, (uint64_t)stream, (uint64_t)pthread_self(), bool(stream->capture),
                     host && is_pinned(host, bytes)});
}

// Others may ask for something now.
void let_others() {
    lock.unlock();
    usleep(200);
    lock.lock();
}

// Runs the queues, one piece of work at a time: until what is waited for is done, and no further,
// or else to their end. Which stream is next is drawn by chance: for each piece, or once for all,
// so that a stream may also lag behind another as far as it is let.
Error drain(const std::function<bool()> &done = nullptr) {
    const bool once = chance() % 2;
    constexpr int PATIENCE = 300'000;
    for (int turns = 0;;) {
        std::vector<Stream *> order = streams;
        std::shuffle(order.begin(), order.end(), chance);
        for (;;) {
            if (done && done()) return sticky;
            if (!once) std::shuffle(order.begin(), order.end(), chance);
            bool waiting = false, progress = false;
            elsewhere = false;
            for (Stream *stream : order) {
                if (stream->queue.empty()) continue;
                waiting = true;
                if (stream->queue.front()()) {
                    stream->queue.pop_front();
                    progress = true;
                    break;
                }
            }
            if (!waiting) return sticky;
            if (progress) continue;
            if (!elsewhere) refuse("all streams wait for events that nobody records");
            // Other ranks' work may go on when they let it: only one's own is waited for.
            if (!done && std::all_of(streams.begin(), streams.end(), [](Stream *stream) {
                    return stream->queue.empty() || !pthread_equal(stream->owner, pthread_self());
                }))
                return sticky;
            if (++turns == PATIENCE) refuse("a stream waits for other ranks, which do not come");
            break;
        }
        // The streams may be others then.
        let_others();
    }
}

// Whether this thread captures, and so must not wait. As all threads do it in thread-local mode.
bool capturing() {
    for (Stream *stream : streams)
        if (stream->capture && pthread_equal(stream->capture->thread, pthread_self())) return true;
    return false;
}

// ---- modules and launches ----
struct Module { void *handle; const Kernel *kernels; unsigned char *shared, *shared_end; };
struct Function { Module *module; const Kernel *kernel; unsigned most_shared; };
// What a kernel may have of it without being asked, and at most: those of an H100.
constexpr unsigned SHARED = 48 << 10, MOST_SHARED = 227 << 10;
std::vector<std::unique_ptr<Function>> functions;
long launches = 0, failing_launch = -1;

struct Launch {
    Function *function;
    Dim grid, block;
    std::vector<std::vector<unsigned char>> values;
    unsigned shared;
};

// Shared memory of a size that a launch gives, up against a page without access.
unsigned char *dynamic_shared(size_t size) {
    constexpr size_t MOST = 256 << 10;
    static unsigned char *end = [] {
        auto *memory = (unsigned char *)mmap(nullptr, MOST + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(memory + MOST, 4096, PROT_NONE);
        return memory + MOST;
    }();
    return end - (size + 15) / 16 * 16;
}

bool run(Launch &launch) {
    if (sticky) return true;
    if (++launches == failing_launch) {
        sticky = LaunchFailed;
        return true;
    }
    std::vector<void *> parameters;
    for (auto &value : launch.values) parameters.push_back(value.data());
    running_kernel = launch.function->kernel->name;
    context.block_size = launch.block, context.grid_size = launch.grid;
    context.barrier = barrier, context.meet = meet, context.touch = touch;
    context.mma_m16n8k16_bf16 = mma_m16n8k16_bf16, context.ldmatrix_x4 = ldmatrix_x4;
    context.refuse = [](const char *what) { refuse(what); };
    context.dynamic = dynamic_shared(launch.shared);
    const Dim &grid = launch.grid;
    std::vector<uint64_t> order(uint64_t(grid.x) * grid.y * grid.z);
    for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), chance);
    Module *module = launch.function->module;
    for (uint64_t i : order) {
        memset(module->shared, FILL, module->shared_end - module->shared);
        memset(context.dynamic, FILL, launch.shared);
        context.block = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
        block.run(launch.block.x * launch.block.y * launch.block.z, launch.function->kernel->call, parameters.data());
    }
    for (auto &[pointer, allocation] : allocations)
        if (allocation.ready) check_margins(pointer, allocation, "after a launch");
    if (watching) settle(running_kernel);
    running_kernel = nullptr;
    return true;
}

// A fault inside a kernel is reported with the kernel's name and thread.
void fault(int signal, siginfo_t *info, void *) {
    if (!running_kernel) {
        ::signal(signal, SIG_DFL);
        return;
    }
    if (signal != SIGSEGV && signal != SIGBUS) refuse("went beyond an array of shared or local memory");
    uintptr_t at = (uintptr_t)info->si_addr;
    for (auto &[pointer, allocation] : allocations) {
        uintptr_t start = (uintptr_t)allocation.map;
        if (at < start || at >= start + allocation.mapped) continue;
        if (!allocation.ready)
            refuse("went to memory of " + std::to_string(allocation.size) + " bytes that another stream has yet to allocate");
        refuse("went out of bounds of an allocation of " + std::to_string(allocation.size) + " bytes, " +
               std::to_string((long)(at - pointer)) + " bytes from its start");
    }
    for (auto &own : freed)
        if (at >= (uintptr_t)own.map && at < (uintptr_t)own.map + own.mapped)
            refuse("went to memory of " + std::to_string(own.size) + " bytes that has been freed");
    refuse("went to an address that is no memory of the device");
}

void watch() {
    static char stack[64 << 10];
    stack_t alternative{};
    alternative.ss_sp = stack, alternative.ss_size = sizeof stack;
    sigaltstack(&alternative, nullptr);
    struct sigaction action{};
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGTRAP}) sigaction(signal, &action, nullptr);
}

int the_context, device_count = 1, driver_version = 12080, capability = 80;
thread_local void *current_context = nullptr;
} // namespace

extern "C" {
// ---- what the tests set ----
void emulator_seed(uint64_t seed) { EXCLUSIVE; chance.seed(seed), orders.seed(seed); }
void emulator_memory(size_t bytes) { EXCLUSIVE; memory_limit = bytes; }
// The n-th launch from now on fails, as a fault on a card would.
void emulator_fail_launch(long n) { EXCLUSIVE; failing_launch = launches + n; }
void emulator_devices(int count) { EXCLUSIVE; device_count = count; }
void emulator_capability(int tenths) { EXCLUSIVE; capability = tenths; }
void emulator_driver_version(int version) { EXCLUSIVE; driver_version = version; }
void emulator_recover() { EXCLUSIVE; sticky = Success; failing_launch = -1; }
// Counts, from now on, the bytes that each kernel touches, if it was compiled to be watched.
void emulator_watch_memory(int on) { EXCLUSIVE; watching = on, touched.clear(); }
// The n-th launch since then, with how many different bytes it read and wrote; null behind the last.
const char *emulator_touched(size_t n, uint64_t *read, uint64_t *written) {
    EXCLUSIVE;
    if (n >= touched.size()) return nullptr;
    return *read = touched[n].read, *written = touched[n].written, touched[n].kernel;
}
// Notes, from now on, what the driver is asked for.
void emulator_listen(int on) { EXCLUSIVE; listening = on, calls.clear(); }
// The n-th call since then.
bool emulator_call(size_t n, Call *call) { EXCLUSIVE; return n < calls.size() && (*call = calls[n], true); }
long emulator_launches() { EXCLUSIVE; return launches; }
// What is free only when its stream comes to it is waited for.
size_t emulator_memory_used() {
    EXCLUSIVE;
    if (!capturing()) drain();
    return memory_used;
}

// ---- the driver API, as far as cudarc's safe layer goes ----
int cuInit(unsigned) { return device_count ? Success : NoDevice; }
int cuDriverGetVersion(int *version) { return *version = driver_version, Success; }
int cuGetExportTable(const void **, const void *) { return NotFound; }
int cuGetErrorString(int error, const char **text) {
    switch (error) {
    case Success: *text = "no error"; break;
    case InvalidValue: *text = "invalid argument"; break;
    case OutOfMemory: *text = "out of memory"; break;
    case NoDevice: *text = "no CUDA-capable device is detected"; break;
    case InvalidDevice: *text = "invalid device ordinal"; break;
    case InvalidImage: *text = "device kernel image is invalid"; break;
    case LaunchFailed: *text = "unspecified launch failure"; break;
    case CaptureUnsupported: *text = "operation not permitted when stream is capturing"; break;
    default: *text = "an error of the emulated driver";
    }
    return Success;
}
int cuGetErrorName(int error, const char **text) { return cuGetErrorString(error, text); }
int cuDeviceGetCount(int *count) { return *count = device_count, Success; }
int cuDeviceGet(int *device, int ordinal) {
    return ordinal >= 0 && ordinal < device_count ? (*device = ordinal, Success) : InvalidDevice;
}
int cuDeviceGetName(char *name, int length, int) { return snprintf(name, length, "emulated device"), Success; }
int cuDeviceTotalMem_v2(size_t *bytes, int) { EXCLUSIVE; return *bytes = memory_limit, Success; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 16: *value = 4; break;     // multiprocessors
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    case 115: *value = 1; break;    // memory pools
    default: *value = 0;
    }
    return Success;
}
int cuDevicePrimaryCtxRetain(void **context, int) { watch(); return *context = &the_context, Success; }
int cuDevicePrimaryCtxRelease_v2(int) { return Success; }
int cuCtxGetCurrent(void **context) { return *context = current_context, Success; }
int cuCtxSetCurrent(void *context) { return current_context = context, Success; }
int cuCtxSynchronize() { EXCLUSIVE; return capturing() ? CaptureUnsupported : drain(); }

int cuMemGetInfo_v2(size_t *left, size_t *total) {
    EXCLUSIVE;
    return *left = memory_limit - memory_used, *total = memory_limit, Success;
}
int cuMemAlloc_v2(uintptr_t *pointer, size_t size) {
    EXCLUSIVE;
    note(Allocated, nullptr, size);
    return allocate(pointer, size);
}
int cuMemFree_v2(uintptr_t pointer) { EXCLUSIVE; drain(); return release(pointer); }
// From a pool: the memory is there, and is taken back, when its stream comes to it. Other streams have to wait for that by
// events. A graph would have memory of its own, which nobody asks for.
int cuMemAllocAsync(uintptr_t *pointer, size_t size, Stream *stream) {
    EXCLUSIVE;
    if (of(stream)->capture) return NotSupported;
    note(Allocated, stream, size);
    Error error = allocate(pointer, size, false);
    if (error == OutOfMemory) {
        // As a pool does, it waits for what is about to be freed.
        drain();
        error = allocate(pointer, size, false);
    }
    if (error) return error;
    push(stream, [at = *pointer] { return open(at), true; });
    return Success;
}
int cuMemFreeAsync(uintptr_t pointer, Stream *stream) {
    EXCLUSIVE;
    if (of(stream)->capture) return NotSupported;
    auto found = allocations.find(pointer);
    if (found == allocations.end() || found->second.leaving) return InvalidValue;
    found->second.leaving = true;
    push(stream, [=] { return release(pointer), true; });
    return Success;
}
int cuMemHostAlloc(void **pointer, size_t size, unsigned) {
    EXCLUSIVE;
    *pointer = malloc(size);
    memset(*pointer, FILL, size);
    pinned[(uintptr_t)*pointer] = size;
    return Success;
}
int cuMemFreeHost(void *pointer) {
    EXCLUSIVE;
    if (!pinned.erase((uintptr_t)pointer)) return InvalidValue;
    drain();
    free(pointer);
    return Success;
}

static int copy(Stream *stream, void *into, const void *from, size_t size, uintptr_t device) {
    EXCLUSIVE;
    if (sticky) return sticky;
    if (!inside(device, size)) return InvalidValue;
    push(stream, [=] {
        check_there(device, size);
        memcpy(into, from, size);
        return true;
    });
    return Success;
}
int cuMemcpyHtoDAsync_v2(uintptr_t into, const void *from, size_t size, Stream *stream) {
    EXCLUSIVE;
    note(CopyIn, stream, size, from);
    return copy(stream, (void *)into, from, size, into);
}
int cuMemcpyDtoHAsync_v2(void *into, uintptr_t from, size_t size, Stream *stream) {
    EXCLUSIVE;
    note(CopyOut, stream, size, into);
    return copy(stream, into, (void *)from, size, from);
}
int cuMemcpyDtoDAsync_v2(uintptr_t into, uintptr_t from, size_t size, Stream *stream) {
    EXCLUSIVE;
    note(CopyOver, stream, size);
    if (!inside(from, size)) return InvalidValue;
    push(stream, [=] { return check_there(from, size), true; });
    return copy(stream, (void *)into, (void *)from, size, into);
}
int cuMemcpyHtoD_v2(uintptr_t into, const void *from, size_t size) {
    EXCLUSIVE;
    int error = cuMemcpyHtoDAsync_v2(into, from, size, nullptr);
    return error ? error : drain();
}
int cuMemcpyDtoH_v2(void *into, uintptr_t from, size_t size) {
    EXCLUSIVE;
    int error = cuMemcpyDtoHAsync_v2(into, from, size, nullptr);
    return error ? error : drain();
}
int cuMemsetD8Async(uintptr_t into, unsigned char value, size_t size, Stream *stream) {
    EXCLUSIVE;
    if (sticky) return sticky;
    if (!inside(into, size)) return InvalidValue;
    note(Clear, stream, size);
    push(stream, [=] {
        check_there(into, size);
        memset((void *)into, value, size);
        if (watching) touched.push_back({"memset", 0, size});
        return true;
    });
    return Success;
}

int cuStreamCreate(Stream **stream, unsigned) {
    EXCLUSIVE;
    streams.push_back(*stream = new Stream);
    return Success;
}
int cuStreamDestroy_v2(Stream *stream) {
    EXCLUSIVE;
    drain();
    streams.erase(std::remove(streams.begin(), streams.end(), stream), streams.end());
    delete stream;
    return Success;
}
int cuStreamSynchronize(Stream *stream) {
    EXCLUSIVE;
    stream = of(stream);
    return stream->capture ? CaptureUnsupported : drain([=] { return stream->queue.empty(); });
}
int cuStreamIsCapturing(Stream *stream, int *status) { EXCLUSIVE; return *status = of(stream)->capture ? 1 : 0, Success; }
int cuStreamWaitEvent(Stream *stream, Event *event, unsigned) {
    EXCLUSIVE;
    stream = of(stream);
    note(Waited, stream);
    if (event->captured) {
        auto capture = event->capture.lock();
        if (!capture) return InvalidValue;
        if (!stream->capture) {
            // It takes part from now on.
            if (stream == &null_stream) return CaptureUnsupported;
            stream->capture = capture;
            stream->branch = capture->streams.size();
            capture->streams.push_back(stream);
            capture->ends.push_back(NONE);
            capture->graph->branches.emplace_back();
        } else if (stream->capture != capture) return CaptureMerge;
        size_t mark = event->mark;
        if (stream->branch == 0) capture->joined.push_back(mark);
        auto marks = capture->graph->marks;
        push(stream, [=] { return bool(marks->set[mark]); });
        return Success;
    }
    // What was asked for before is no part of a graph.
    if (stream->capture) return event->recorded ? CaptureIsolation : Success;
    uint64_t turn = event->recorded;
    push(stream, [=] { return event->done >= turn; });
    return Success;
}
int cuEventCreate(Event **event, unsigned) { return *event = new Event, Success; }
int cuEventDestroy_v2(Event *event) { EXCLUSIVE; drain(); delete event; return Success; }
int cuEventRecord(Event *event, Stream *stream) {
    EXCLUSIVE;
    stream = of(stream);
    note(Recorded, stream);
    if (auto capture = stream->capture) {
        auto marks = capture->graph->marks;
        size_t mark = marks->set.size();
        marks->set.push_back(false);
        push(stream, [=] { return marks->set[mark] = true; });
        capture->ends[stream->branch] = mark;
        event->captured = true, event->capture = capture, event->mark = mark;
        return Success;
    }
    event->captured = false;
    uint64_t turn = ++event->recorded;
    push(stream, [=] { event->done = turn; return true; });
    return Success;
}
int cuEventSynchronize(Event *event) {
    EXCLUSIVE;
    if (event->captured) return CaptureUnsupported;
    uint64_t turn = event->recorded;
    return capturing() ? CaptureUnsupported : drain([=] { return event->done >= turn; });
}
int cuEventQuery(Event *event) { EXCLUSIVE; return event->done == event->recorded ? Success : 600; }
int cuEventElapsedTime(float *milliseconds, Event *, Event *) { return *milliseconds = 0, Success; }

int cuStreamBeginCapture_v2(Stream *stream, int mode) {
    EXCLUSIVE;
    constexpr int THREAD_LOCAL = 1;
    if (mode != THREAD_LOCAL) return NotSupported;
    if (of(stream) == &null_stream || of(stream)->capture) return CaptureUnsupported;
    note(Captured, stream);
    stream->capture = std::make_shared<Capture>();
    stream->branch = 0;
    stream->capture->streams.push_back(stream);
    stream->capture->ends.push_back(NONE);
    return Success;
}
int cuStreamEndCapture(Stream *stream, Graph **graph) {
    EXCLUSIVE;
    auto capture = of(stream)->capture;
    *graph = nullptr;
    if (!capture || stream->branch != 0) return InvalidValue;
    for (Stream *part : capture->streams) part->capture = nullptr;
    // All that others do has to come before the end.
    for (size_t branch = 1; branch < capture->streams.size(); ++branch) {
        size_t end = capture->ends[branch];
        if (end == NONE || !std::count(capture->joined.begin(), capture->joined.end(), end)) return CaptureUnjoined;
    }
    *graph = capture->graph.release();
    return Success;
}
int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long) {
    EXCLUSIVE;
    // A card's takes some memory, and nobody says how much: here, that there is any is enough.
    if (memory_used >= memory_limit) return OutOfMemory;
    return *executable = new Graph(*graph), Success;
}
int cuGraphLaunch(Graph *graph, Stream *stream) {
    EXCLUSIVE;
    if (sticky) return sticky;
    note(Replayed, stream);
    auto marks = graph->marks;
    uint64_t turn = ++graph->launched;
    while (graph->sides.size() + 1 < graph->branches.size()) {
        graph->sides.push_back(new Stream);
        streams.push_back(graph->sides.back());
    }
    push(stream, [=] {
        std::fill(marks->set.begin(), marks->set.end(), false);
        marks->started = turn;
        return true;
    });
    for (size_t branch = 0; branch < graph->branches.size(); ++branch) {
        Stream *into = branch ? graph->sides[branch - 1] : stream;
        if (branch) push(into, [=] { return marks->started >= turn; });
        for (auto &work : graph->branches[branch]) push(into, work);
    }
    return Success;
}
int cuGraphExecDestroy(Graph *graph) {
    EXCLUSIVE;
    drain();
    for (Stream *side : graph->sides) {
        streams.erase(std::remove(streams.begin(), streams.end(), side), streams.end());
        delete side;
    }
    delete graph;
    return Success;
}
int cuGraphDestroy(Graph *graph) { delete graph; return Success; }

// For the emulated NCCL: work of its own on a stream, which may have to wait for other threads.
void emulator_push(Stream *stream, bool (*work)(void *), void *with) {
    EXCLUSIVE;
    note(Averaged, stream);
    push(stream, [=] {
        if (work(with)) return true;
        elsewhere = true;
        return false;
    });
}
bool emulator_has(uintptr_t from, size_t size) { EXCLUSIVE; return inside(from, size); }

int cuModuleLoadData(Module **module, const void *image) {
    EXCLUSIVE;
    // The size of an ELF file follows from its header: the section table is its end.
    auto *bytes = (const unsigned char *)image;
    if (memcmp(bytes, "\177ELF", 4)) return InvalidImage;
    uint64_t table;
    uint16_t entry, count;
    memcpy(&table, bytes + 40, 8), memcpy(&entry, bytes + 58, 2), memcpy(&count, bytes + 60, 2);
    int file = memfd_create("kernel", 0);
    size_t size = table + uint64_t(entry) * count;
    if (file < 0 || write(file, image, size) != (ssize_t)size) return OutOfMemory;
    void *handle = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        fprintf(stderr, "emulated CUDA: %s\n", dlerror());
        close(file);
        return InvalidImage;
    }
    // The file stays open: its path must not name another module, which dlopen would take for it.
    auto attach = (void (*)(Context *, unsigned char **, unsigned char **))dlsym(handle, "emulated_attach");
    auto *kernels = (const Kernel *)dlsym(handle, "emulated_kernels");
    if (!attach || !kernels) return InvalidImage;
    *module = new Module{handle, kernels, nullptr, nullptr};
    attach(&context, &(*module)->shared, &(*module)->shared_end);
    return Success;
}
int cuModuleUnload(Module *module) {
    EXCLUSIVE;
    drain();
    delete module;
    return Success;
}
int cuModuleGetFunction(Function **function, Module *module, const char *name) {
    EXCLUSIVE;
    for (const Kernel *kernel = module->kernels; kernel->name; ++kernel)
        if (!strcmp(kernel->name, name)) {
            functions.push_back(std::make_unique<Function>(Function{module, kernel, SHARED}));
            *function = functions.back().get();
            return Success;
        }
    return NotFound;
}

int cuFuncSetAttribute(Function *function, int attribute, int value) {
    constexpr int MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
    if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES) return NotSupported;
    if (value < 0 || unsigned(value) > MOST_SHARED) return InvalidValue;
    function->most_shared = value;
    return Success;
}

int cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Stream *stream, void **parameters, void **) {
    EXCLUSIVE;
    if (sticky) return sticky;
    size_t declared = function->module->shared_end - function->module->shared;
    if (shared > function->most_shared || shared + declared > MOST_SHARED) return InvalidValue;
    uint64_t threads = uint64_t(bx) * by * bz;
    if (!gx || !gy || !gz || !threads || threads > 1024 || bz > 64 || gx > 0x7fffffff || gy > 65535 || gz > 65535)
        return InvalidValue;
    Launch launch{function, {gx, gy, gz}, {bx, by, bz}, {}, shared};
    for (const unsigned *size = function->kernel->sizes; *size; ++size, ++parameters)
        launch.values.emplace_back((unsigned char *)*parameters, (unsigned char *)*parameters + *size);
    note(Launched, stream, 0, nullptr, function->kernel->name, size_t(gx) * gy * gz);
    push(stream, [launch]() mutable { return run(launch); });
    return Success;
}
}
