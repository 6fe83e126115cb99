//! Work that was captured once, to be put onto a stream by one call.

use cudarc::driver::{result, sys};

use super::error::{Call, CudaError};

/// A captured graph, ready to run.
pub(super) struct Recording {
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
}

impl Recording {
    /// Captures what `put` puts onto the stream, which captures nothing yet.
    pub(super) fn of(
        stream: sys::CUstream,
        put: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Recording, CudaError> {
        // SAFETY: the caller's stream, alive and of the current context.
        unsafe {
            result::stream::begin_capture(
                stream,
                sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
            )
        }
        .call("cuStreamBeginCapture")?;
        let put = put();
        // SAFETY: it is capturing; ended whether or not all went in, so that the stream is usable again.
        let graph = unsafe { result::stream::end_capture(stream) }.call("cuStreamEndCapture");
        if let Err(e) = put {
            if let Ok(graph) = graph {
                destroy(graph)?;
            }
            return Err(e);
        }
        let graph = graph?;
        // SAFETY: a graph that was just captured.
        let exec = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) };
        match exec.call("cuGraphInstantiate") {
            Ok(exec) => Ok(Recording { graph, exec }),
            Err(e) => destroy(graph).and(Err(e)),
        }
    }

    /// Puts it onto the stream.
    pub(super) fn launch(&self, stream: sys::CUstream) -> Result<(), CudaError> {
        // SAFETY: captured, and not destroyed; the caller's stream, of the same context. Whose memory it works on is
        // the caller's affair.
        unsafe { result::graph::launch(self.exec, stream) }.call("cuGraphLaunch")
    }

    pub(super) fn destroy(self) -> Result<(), CudaError> {
        // SAFETY: made in `of`, and not used again.
        let gone = unsafe { result::graph::exec_destroy(self.exec) }.call("cuGraphExecDestroy");
        gone.and(destroy(self.graph))
    }
}

fn destroy(graph: sys::CUgraph) -> Result<(), CudaError> {
    if graph.is_null() {
        return Ok(());
    }
    // SAFETY: a graph that nobody else has.
    unsafe { result::graph::destroy(graph) }.call("cuGraphDestroy")
}
