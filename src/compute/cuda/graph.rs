//! Launches that are captured once as a CUDA graph and run over and over: what a tick is.
//!
//! A tick never waits for a capture. The first one asks for it and leaves the work to the CPU, and so do those that
//! follow until the graph is there ([`TickGraph`]); so it is again when shapes change, and after a failure.

use std::sync::Arc;
use std::time::Duration;

use super::error::CudaError;
use super::memory::{Lease, Memory};
use super::parking;
use super::staging::Layout;
use super::thread::Answer;
use super::{Cuda, PATIENT_LIMIT};
use crate::compute::launch::Step;
use crate::compute::{By, Launch, ShapeError, Task};

/// Longest that a tick's capture may take while the CPU does the ticks.
const CAPTURE_LIMIT: Duration = Duration::from_secs(10);

/// Launches that follow each other, their arrays laid out in one block.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    steps: Vec<Step>,
    layout: Layout,
}

impl Plan {
    fn of(cuda: &Cuda, tasks: &mut [Box<dyn Task + '_>]) -> Plan {
        let geometry = cuda.properties().geometry();
        let launches: Vec<Launch<'_>> = tasks.iter_mut().map(|t| t.launch(&geometry)).collect();
        Plan::joined(&launches)
    }

    /// Arrays are numbered through.
    fn joined(launches: &[Launch<'_>]) -> Plan {
        let layout = Layout::of(launches.iter().flat_map(|l| &l.data));
        let mut first = 0;
        let mut steps = Vec::with_capacity(launches.len());
        for launch in launches {
            steps.push(launch.step.with_arrays_from(first));
            first += launch.data.len();
        }
        Plan { steps, layout }
    }

    /// What captures it on the device's thread, and gives the graph's lease. The launches are run once before, over what
    /// these tasks give.
    fn capture(
        &self,
        cuda: &Cuda,
        tasks: &mut [Box<dyn Task + '_>],
        memory: &Arc<Memory>,
    ) -> impl FnOnce(&mut super::device::Device) -> Result<Lease, CudaError> + Send + 'static {
        let (plan, memory) = (self.clone(), Arc::clone(memory));
        let geometry = cuda.properties().geometry();
        let launches: Vec<Launch<'_>> = tasks.iter_mut().map(|t| t.launch(&geometry)).collect();
        let image = plan.layout.image(launches.iter().flat_map(|l| &l.data));
        move |device| {
            let bytes = plan.layout.bytes;
            let parked = memory.parking.take(bytes);
            let mut staging = parked.map_or_else(|| device.stage(parking::rounded(bytes)), Ok)?;
            staging.slice_mut()[..image.len()].copy_from_slice(&image);
            let lease = memory.lease();
            device.capture(lease.number, &staging, &plan.layout, &plan.steps)?;
            memory.keep(lease.number, staging);
            Ok(lease)
        }
    }
}

/// Tasks of fixed shapes, captured as one CUDA graph: one launch a tick.
pub struct Graph {
    cuda: Cuda,
    plan: Plan,
    lease: Lease,
}

/// A tick's graph, from its first tick on.
#[derive(Default)]
pub struct TickGraph(Stage);

#[derive(Default)]
enum Stage {
    #[default]
    Wanted,
    Asked(Plan, Answer<Lease>),
    Captured(Box<Graph>),
}

impl Cuda {
    /// Captures tasks of fixed shapes as one graph, to be run over and over with [`Graph::try_run`].
    ///
    /// # Errors
    /// What the driver said.
    pub fn capture(&self, tasks: &mut [Box<dyn Task + '_>]) -> Result<Graph, CudaError> {
        let plan = Plan::of(self, tasks);
        super::fits(plan.layout.bytes)?;
        let thread = &self.inner.thread;
        let lease = thread.call(PATIENT_LIMIT, plan.capture(self, tasks, &thread.memory))?;
        Ok(Graph {
            cuda: self.clone(),
            plan,
            lease,
        })
    }

    /// Carries out tasks as one graph, which is captured beside the first calls and kept in `graph`; on the CPU until
    /// it is there, and if the device fails.
    ///
    /// # Errors
    /// [`ShapeError`] if the arrays do not fit each other.
    pub fn tick(
        &self,
        graph: &mut TickGraph,
        tasks: &mut [Box<dyn Task + '_>],
    ) -> Result<By, ShapeError> {
        self.guarded(tasks, |tasks| self.try_tick(graph, tasks))
    }

    fn try_tick(
        &self,
        graph: &mut TickGraph,
        tasks: &mut [Box<dyn Task + '_>],
    ) -> Result<(), CudaError> {
        let plan = Plan::of(self, tasks);
        if let Stage::Asked(asked, answer) = &graph.0 {
            let said = answer.poll(CAPTURE_LIMIT).ok_or(CudaError::NotYet)?;
            let asked = asked.clone();
            graph.0 = Stage::Wanted;
            graph.0 = Stage::Captured(Box::new(Graph {
                cuda: self.clone(),
                plan: asked,
                lease: said?,
            }));
        }
        if let Stage::Captured(captured) = &mut graph.0
            && captured.plan == plan
        {
            match captured.replay(tasks) {
                // Of a context that is gone.
                Err(CudaError::NotCaptured) => {}
                said => return said,
            }
        }
        super::fits(plan.layout.bytes)?;
        let thread = &self.inner.thread;
        // The old one goes first: its block may serve again.
        graph.0 = Stage::Wanted;
        let answer = thread.send(plan.capture(self, tasks, &thread.memory))?;
        graph.0 = Stage::Asked(plan, answer);
        Err(CudaError::NotYet)
    }
}

impl Graph {
    /// Carries out the tasks on the device, and nowhere else. Other shapes or numbers than those captured are captured
    /// anew.
    ///
    /// # Errors
    /// What the driver said.
    pub fn try_run(&mut self, tasks: &mut [Box<dyn Task + '_>]) -> Result<(), CudaError> {
        if Plan::of(&self.cuda, tasks) == self.plan {
            match self.replay(tasks) {
                Err(CudaError::NotCaptured) => {}
                said => return said,
            }
        }
        *self = self.cuda.capture(tasks)?;
        self.replay(tasks)
    }

    /// Runs it over tasks of the shapes that were captured.
    fn replay(&mut self, tasks: &mut [Box<dyn Task + '_>]) -> Result<(), CudaError> {
        let (cuda, number, layout) = (&self.cuda, self.lease.number, &self.plan.layout);
        let memory = &cuda.inner.thread.memory;
        let geometry = cuda.properties().geometry();
        let mut launches: Vec<Launch<'_>> = tasks.iter_mut().map(|t| t.launch(&geometry)).collect();
        let mut staging = memory.take(number).ok_or(CudaError::NotCaptured)?;
        staging.fill(layout, launches.iter().flat_map(|l| &l.data));
        let (staging, said) =
            (cuda.inner.thread).lend(cuda.limit, staging, move |device, _| device.replay(number));
        let Some(staging) = staging else {
            return said;
        };
        if said.is_ok() {
            staging.drain(layout, launches.iter_mut().flat_map(|l| &mut l.data));
        }
        // A device that has failed takes its graphs with it.
        if cuda.inner.thread.pulse.is_open() {
            memory.keep(number, staging);
        }
        said
    }
}
