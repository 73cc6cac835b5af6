package org.deixis.data;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.IdentityHashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.deixis.core.InputException;
import org.deixis.core.Rng;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Makes batches ahead of their use, on several threads. Which batches, and every byte of them,
 * depends on the data set, the configuration and the weights alone, not on the number of threads or
 * on how far ahead they run. Used by one thread.
 */
public final class DataLoader implements Iterator<Batch>, AutoCloseable {
  /**
   * Where the loader stands.
   *
   * @param epoch of the next batch
   * @param batch its index in the epoch
   * @param weights by which that epoch was drawn; null without weights, or when it is not drawn yet
   */
  public record State(int epoch, int batch, double[] weights) {}

  private record Pending(int epoch, int batch, Future<Batch> future) {}

  private static final Logger LOG = LoggerFactory.getLogger(DataLoader.class);

  private final LoaderConfig config;
  private final int[][] groups;
  private final int batchesPerEpoch;
  private final SampleWeights weights;
  private final BatchMaker maker;
  private final ExecutorService workers;
  private final Deque<Pending> pending = new ArrayDeque<>();

  private EpochPlan plan;
  private double[] planWeights;
  private int planEpoch;
  private int planned;
  private int epoch;
  private int batch;
  private boolean closed;

  /** Without weights: every expression is drawn alike. */
  public DataLoader(Dataset dataset, TextTokenizer tokenizer, LoaderConfig config) {
    this(dataset, tokenizer, config, null);
  }

  /**
   * @param weights how often to draw each sample, or null; only where the loader shuffles
   */
  public DataLoader(
      Dataset dataset, TextTokenizer tokenizer, LoaderConfig config, SampleWeights weights) {
    if (dataset.size() == 0) {
      throw new InputException(dataset.name() + ": holds no sample");
    }
    if (weights != null && !config.shuffle()) {
      throw new IllegalArgumentException("weights have no meaning where nothing is drawn");
    }
    this.config = config;
    this.weights = weights;
    this.groups = group(dataset);
    this.batchesPerEpoch = batchesPerEpoch(groups, config);
    this.maker = new BatchMaker(dataset, tokenizer, config);
    AtomicInteger number = new AtomicInteger();
    this.workers =
        Executors.newFixedThreadPool(
            config.threads(),
            task -> {
              Thread thread = new Thread(task, "deixis-loader-" + number.getAndIncrement());
              thread.setDaemon(true);
              return thread;
            });
  }

  private static int[][] group(Dataset dataset) {
    Map<Picture, List<Integer>> samples = new IdentityHashMap<>();
    for (int i = 0; i < dataset.size(); i++) {
      samples.computeIfAbsent(dataset.samples().get(i).picture(), p -> new ArrayList<>()).add(i);
    }
    return dataset.pictures().stream()
        .map(p -> samples.get(p).stream().mapToInt(i -> i).toArray())
        .toArray(int[][]::new);
  }

  /** Streams of the seed: one for the order of each epoch, one for each of its pictures. */
  static long augmentStream(int epoch, long position) {
    return (long) epoch << 33 | 1L << 32 | position;
  }

  private static long planStream(int epoch) {
    return (long) epoch << 33;
  }

  /** Whether another batch follows: always, unless the number of epochs is limited. */
  @Override
  public boolean hasNext() {
    if (closed) {
      return false;
    }
    if (!pending.isEmpty() || config.epochs() == 0) {
      return true;
    }
    if (plan == null) {
      return (batch == batchesPerEpoch ? epoch + 1 : epoch) < config.epochs();
    }
    return (planned == batchesPerEpoch ? planEpoch + 1 : planEpoch) < config.epochs();
  }

  /**
   * The next batch; waits for it if need be.
   *
   * @throws InputException when a picture, mask or phrase of it is damaged; the loader is closed
   *     then
   */
  @Override
  public Batch next() {
    if (closed) {
      throw new IllegalStateException("the loader is closed");
    }
    schedule();
    Pending head = pending.poll();
    if (head == null) {
      throw new NoSuchElementException("no batch after " + config.epochs() + " epochs");
    }
    if (weights == null) {
      schedule();
    }
    try {
      Batch result = head.future.get();
      epoch = head.epoch;
      batch = head.batch + 1;
      return result;
    } catch (ExecutionException e) {
      close();
      if (e.getCause() instanceof RuntimeException cause) {
        throw cause;
      }
      if (e.getCause() instanceof Error cause) {
        throw cause;
      }
      throw new IllegalStateException(e.getCause());
    } catch (InterruptedException e) {
      close();
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while waiting for a batch", e);
    }
  }

  private void schedule() {
    while (pending.size() < config.prefetch()) {
      if (plan == null) {
        planEpoch = epoch;
        planned = batch;
        draw(null);
      }
      if (planned == plan.size()) {
        boolean last = config.epochs() > 0 && planEpoch + 1 >= config.epochs();
        // The next epoch is drawn by weights that the trainer is still changing: not ahead of time.
        if (last || weights != null && !pending.isEmpty()) {
          return;
        }
        planEpoch++;
        planned = 0;
        draw(null);
      }
      if (config.epochs() > 0 && planEpoch >= config.epochs()) {
        return;
      }
      int e = planEpoch;
      int b = planned++;
      List<EpochPlan.Unit> units = plan.batch(b);
      pending.add(new Pending(e, b, workers.submit(() -> maker.make(units, e, b))));
    }
  }

  private void draw(double[] given) {
    if (!config.shuffle()) {
      plan = EpochPlan.inOrder(groups, config.images(), config.expressionsPerImage());
      return;
    }
    planWeights = given != null ? given : weights == null ? null : weights.values();
    plan =
        EpochPlan.shuffled(
            groups,
            config.images(),
            config.expressionsPerImage(),
            planWeights,
            new Rng(config.seed(), planStream(planEpoch)));
  }

  private static int batchesPerEpoch(int[][] groups, LoaderConfig config) {
    int expressions = config.expressionsPerImage();
    if (!config.shuffle()) {
      return EpochPlan.inOrder(groups, config.images(), expressions).size();
    }
    int units = 0;
    for (int[] group : groups) {
      units += (group.length + expressions - 1) / expressions;
    }
    return Math.max(1, units / config.images());
  }

  /** Whether the next batch is another epoch's, which is drawn by the weights as they are then. */
  public boolean atEpochEnd() {
    return plan != null && batch == batchesPerEpoch;
  }

  /** Batches in an epoch. */
  public int batchesPerEpoch() {
    return batchesPerEpoch;
  }

  /** Where the loader stands after the batch that {@link #next} gave last. */
  public State state() {
    // Nothing of the coming epoch is drawn while weights are in use and this one is not used up.
    if (plan != null && batch == batchesPerEpoch) {
      return new State(epoch + 1, 0, null);
    }
    return new State(epoch, batch, planWeights == null ? null : planWeights.clone());
  }

  /**
   * Goes to where a loader of the same data set and configuration stood. With weights, restore the
   * {@link SampleWeights} too.
   */
  public void restore(State state) {
    if (closed) {
      throw new IllegalStateException("the loader is closed");
    }
    if (state.epoch() < 0 || state.batch() < 0 || state.batch() > batchesPerEpoch) {
      throw new InputException(
          "checkpoint stands at batch %d of epoch %d, an epoch of this data set has %d; resume with"
                  .formatted(state.batch(), state.epoch(), batchesPerEpoch)
              + " the data set and batch size of the checkpoint");
    }
    pending.forEach(p -> p.future.cancel(false));
    pending.clear();
    epoch = state.epoch();
    batch = state.batch();
    plan = null;
    planWeights = null;
    if (state.weights() != null) {
      if (weights == null || state.weights().length != weights.values().length) {
        throw new InputException(
            "checkpoint was trained with weights of "
                + state.weights().length
                + " samples; resume with the same data set and hard-example mining on");
      }
      planEpoch = epoch;
      planned = batch;
      draw(state.weights().clone());
    }
  }

  /** Epoch of the batch that {@link #next} gave last. */
  public int epoch() {
    return epoch;
  }

  /** Batches of {@link #epoch} given so far. */
  public int batchInEpoch() {
    return batch;
  }

  /**
   * Gives the batch's large buffers back for reuse. Optional; the caller must not touch them
   * afterwards.
   */
  public void recycle(Batch used) {
    maker.recycle(used.masks());
    maker.recycle(used.pixels());
  }

  /** Stops the threads and waits for what they are at: the tokenizer may be closed after that. */
  @Override
  public void close() {
    closed = true;
    pending.clear();
    workers.shutdownNow();
    boolean interrupted = Thread.interrupted();
    try {
      while (!workers.awaitTermination(1, TimeUnit.MINUTES)) {
        LOG.warn("a loader thread has been busy with one batch for over a minute");
      }
    } catch (InterruptedException e) {
      interrupted = true;
    }
    if (interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
