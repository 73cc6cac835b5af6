package org.deixis.backend.cuda;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.cuda.cudart.CUgraphExec_st;
import org.bytedeco.cuda.cudart.CUgraph_st;
import org.bytedeco.cuda.global.cudart;
import org.deixis.backend.Graphs;

/** CUDA graphs, captured from the backend's stream and launched into it. */
final class CudaGraphs implements Graphs {
  private final Driver driver;
  private final DeviceMemory memory;
  private final Staging staging;

  /** What kernels of the graph being captured read, to be brought to the device after it. */
  private final List<Constant> constants = new ArrayList<>();

  private record Constant(DeviceBuffer buffer, ByteBuffer content) {}

  CudaGraphs(Driver driver, DeviceMemory memory, Staging staging) {
    this.driver = driver;
    this.memory = memory;
    this.staging = staging;
  }

  /**
   * While a graph is captured: device memory that lives as long as the graph and will hold {@code
   * content} at its launches.
   */
  DeviceBuffer constant(ByteBuffer content) {
    // Not of the memory that graphs share: a launch of another graph would overwrite it.
    DeviceBuffer buffer = memory.outsideGraphs(content.remaining());
    constants.add(new Constant(buffer, content));
    return buffer;
  }

  /** In the turn of its thread from begin to end: another's graph would write to its memory. */
  @Override
  public void warmUp(Runnable work) {
    driver.lock();
    try {
      DeviceMemory.Region region = memory.enterGraph();
      try {
        work.run();
      } finally {
        memory.leaveGraph(region);
      }
      if (memory.graphs() > 0) {
        region.requireNothingLeft();
      }
    } finally {
      driver.unlock();
    }
  }

  @Override
  public Graph capture(Runnable work) {
    driver.lock();
    try {
      return captureInTurn(work);
    } finally {
      driver.unlock();
    }
  }

  private Graph captureInTurn(Runnable work) {
    List<DeviceBuffer> kept = new ArrayList<>();
    CUgraph_st recorded = new CUgraph_st();
    boolean made = false;
    memory.addGraph();
    try {
      DeviceMemory.Region region = memory.enterGraph();
      try {
        record(work, recorded);
      } finally {
        memory.leaveGraph(region);
      }
      region.requireNothingLeft();
      CUgraphExec_st executable = new CUgraphExec_st();
      Driver.check(
          cudart.cuGraphInstantiate(executable, recorded, 0), "cuGraphInstantiate of the graph");
      for (Constant c : constants) {
        staging.upload(c.content, c.buffer.address());
        kept.add(c.buffer);
      }
      constants.clear();
      made = true;
      return new CudaGraph(executable, kept, region.most());
    } finally {
      constants.forEach(c -> c.buffer.release());
      constants.clear();
      if (!recorded.isNull()) {
        Driver.check(cudart.cuGraphDestroy(recorded), "cuGraphDestroy");
      }
      if (!made) {
        memory.removeGraph();
      }
    }
  }

  private void record(Runnable work, CUgraph_st recorded) {
    driver.beginCapture();
    boolean whole = false;
    try {
      work.run();
      whole = true;
    } finally {
      int code = driver.endCapture(recorded);
      if (whole) {
        Driver.check(code, "capture of a graph (DEIXIS_GRAPHS=0 does without graphs)");
      }
    }
  }

  private final class CudaGraph implements Graph {
    private final CUgraphExec_st executable;
    private final List<DeviceBuffer> kept;
    private final long most;
    private boolean closed;

    CudaGraph(CUgraphExec_st executable, List<DeviceBuffer> kept, long most) {
      this.executable = executable;
      this.kept = kept;
      this.most = most;
    }

    @Override
    public void launch() {
      driver.refuseWhileCapturing("a launch of a graph");
      if (closed) {
        throw new IllegalStateException("a graph is launched after it was closed");
      }
      driver.enter();
      driver.lock();
      try {
        Driver.check(cudart.cuGraphLaunch(executable, driver.stream()), "launch of a graph");
      } finally {
        driver.unlock();
      }
      memory.touch(most);
    }

    /** The driver lets a launch that is under way end; what is freed here is used after it. */
    @Override
    public void close() {
      if (closed) {
        return;
      }
      driver.refuseWhileCapturing("closing a graph");
      closed = true;
      driver.enter();
      Driver.check(cudart.cuGraphExecDestroy(executable), "cuGraphExecDestroy");
      kept.forEach(DeviceBuffer::release);
      memory.removeGraph();
    }
  }
}
