// A driver that answers what it is told to in STAND_IN_CUDA: cuInit's result, and how many GPUs there are.
#include <cstdio>
#include <cstdlib>

namespace
{

int init = 0;
int devices = 1;

void read()
{
    if (char const* const told = std::getenv("STAND_IN_CUDA"))
    {
        (void) std::sscanf(told, "%d %d", &init, &devices);
    }
}

} // namespace

extern "C"
{

int cuInit(unsigned)
{
    read();
    return init;
}

int cuDeviceGetCount(int* count)
{
    *count = devices;
    return 0;
}

int cuDriverGetVersion(int* version)
{
    *version = 12060;
    return 0;
}

int cuGetErrorString(int, char const** text)
{
    *text = "no CUDA-capable device is detected";
    return 0;
}

} // extern "C"
