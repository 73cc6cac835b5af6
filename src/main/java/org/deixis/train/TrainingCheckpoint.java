package org.deixis.train;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.core.Shape;
import org.deixis.data.DataLoader;
import org.deixis.io.HostTensor;
import org.deixis.io.Safetensors;
import org.deixis.nn.Parameter;

/**
 * All of a run's state in one safetensors file: weights ({@code model.}), optimiser ({@code
 * optimizer.}), the loader's place and sample weights, and in the metadata the step and both
 * configurations. Written beside, then renamed.
 */
final class TrainingCheckpoint {
  private static final String PREFIX = "step-";
  private static final String SUFFIX = ".safetensors";

  /** What a file holds. */
  record State(
      long step,
      Map<String, float[]> model,
      Map<String, float[]> optimizer,
      DataLoader.State loader,
      double[] sampleWeights,
      double meanLoss,
      Map<String, String> metadata) {}

  private TrainingCheckpoint() {}

  static Path file(Path folder, long step) {
    return folder.resolve(PREFIX + String.format("%08d", step) + SUFFIX);
  }

  static void write(Path file, State state, Map<String, Parameter> parameters) {
    List<HostTensor> tensors = new ArrayList<>();
    parameters.forEach(
        (name, p) -> tensors.add(HostTensor.ofFloats("model." + name, p.shape(), p.toFloats())));
    state.optimizer.forEach(
        (name, v) -> tensors.add(HostTensor.ofFloats("optimizer." + name, Shape.of(v.length), v)));
    tensors.add(
        HostTensor.ofLongs(
            "loader.place", Shape.of(2), new long[] {state.loader.epoch(), state.loader.batch()}));
    tensors.add(doubles("loader.weights", state.loader.weights()));
    tensors.add(doubles("samples.weights", state.sampleWeights));
    tensors.add(doubles("samples.mean", new double[] {state.meanLoss}));
    Map<String, String> metadata = new LinkedHashMap<>(state.metadata);
    metadata.put("step", Long.toString(state.step));
    Safetensors.write(file, tensors, metadata);
  }

  private static HostTensor doubles(String name, double[] v) {
    double[] values = v == null ? new double[0] : v;
    return HostTensor.ofDoubles(name, Shape.of(values.length), values);
  }

  static State read(Path file) {
    Safetensors saved = Safetensors.read(file);
    Map<String, float[]> model = new LinkedHashMap<>();
    Map<String, float[]> optimizer = new LinkedHashMap<>();
    saved
        .tensors()
        .forEach(
            (name, t) -> {
              if (name.startsWith("model.")) {
                model.put(name.substring("model.".length()), t.toFloats());
              } else if (name.startsWith("optimizer.")) {
                optimizer.put(name.substring("optimizer.".length()), t.toFloats());
              }
            });
    String step = saved.metadata().get("step");
    for (String needed :
        List.of("loader.place", "loader.weights", "samples.weights", "samples.mean")) {
      if (step == null || !saved.tensors().containsKey(needed)) {
        throw new InputException(file + " is no training checkpoint: it lacks " + needed);
      }
    }
    long[] place = saved.tensors().get("loader.place").toLongs();
    double[] loaderWeights = saved.tensors().get("loader.weights").toDoubles();
    return new State(
        Long.parseLong(step),
        model,
        optimizer,
        new DataLoader.State(
            Math.toIntExact(place[0]),
            Math.toIntExact(place[1]),
            loaderWeights.length == 0 ? null : loaderWeights),
        saved.tensors().get("samples.weights").toDoubles(),
        saved.tensors().get("samples.mean").toDoubles()[0],
        saved.metadata());
  }

  /** Puts the weights into the model's parameters. */
  static void load(State state, Map<String, Parameter> parameters, Path file) {
    parameters.forEach(
        (name, p) -> {
          float[] values = state.model.get(name);
          if (values == null || values.length != p.shape().size()) {
            throw new InputException(
                file
                    + " does not fit the model: it "
                    + (values == null ? "lacks " : "has another size of ")
                    + name);
          }
          p.set(values);
        });
  }

  /** The checkpoints of a folder, oldest first. */
  static List<Path> list(Path folder) {
    if (!Files.isDirectory(folder)) {
      return List.of();
    }
    try (Stream<Path> files = Files.list(folder)) {
      return files
          .filter(
              f -> f.getFileName().toString().startsWith(PREFIX) && f.toString().endsWith(SUFFIX))
          .sorted(Comparator.comparing(f -> f.getFileName().toString()))
          .toList();
    } catch (IOException e) {
      throw new InputException("cannot list " + folder + ": " + Reason.of(e), e);
    }
  }

  /** Deletes all but the latest {@code keep}. */
  static void prune(Path folder, int keep) {
    List<Path> all = list(folder);
    for (int i = 0; i < all.size() - keep; i++) {
      try {
        Files.delete(all.get(i));
      } catch (IOException e) {
        throw new InputException(
            "cannot delete the old checkpoint " + all.get(i) + ": " + Reason.of(e), e);
      }
    }
  }
}
