package org.deixis.weights;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.AbstractCollection;
import java.util.Collection;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Consumer;
import org.deixis.backend.Backend;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.core.Shape;
import org.deixis.data.TextTokenizer;
import org.deixis.infer.ModelFolder;
import org.deixis.io.HostTensor;
import org.deixis.io.Safetensors;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;

/**
 * A model folder made of imported encoders. The model is built once without values, to learn its
 * parameters; then each is read, written and forgotten, so that no more than one is in memory.
 */
public final class ModelImport {
  /** What a parameter is, and how a fresh one is drawn. */
  private record Wanted(Shape shape, ParameterSource.Init init) {}

  /** Notes what a model asks for. */
  private record Outline(Backend backend, String prefix, Map<String, Wanted> all)
      implements ParameterSource {
    @Override
    public Parameter parameter(String name, Shape shape, Init init) {
      all.put(prefix + name, new Wanted(shape, init));
      return Parameter.outline(backend, shape);
    }

    @Override
    public ParameterSource part(String name) {
      return new Outline(backend, prefix + name + ".", all);
    }
  }

  private final GresConfig config;
  private final Map<String, Wanted> wanted = new LinkedHashMap<>();
  private final Map<String, WeightImport> imports = new LinkedHashMap<>();

  /**
   * @param backend that the model is built on, without computing
   */
  public ModelImport(Backend backend, GresConfig config) {
    this.config = config;
    new GuideModel(new Outline(backend, "", wanted), config).close();
    backend.memory().trim();
  }

  /** Parameters under a prefix such as "vision.", by their names without it. */
  public Map<String, Shape> wanted(String prefix) {
    Map<String, Shape> under = new LinkedHashMap<>();
    wanted.forEach(
        (name, w) -> {
          if (name.startsWith(prefix)) {
            under.put(name.substring(prefix.length()), w.shape);
          }
        });
    return under;
  }

  /** Takes the parameters under a prefix from a checkpoint. */
  public void take(String prefix, WeightImport source) {
    imports.put(prefix, source);
  }

  /** How many parameters no checkpoint has, so that they are drawn anew. */
  public int fresh() {
    return (int) wanted.keySet().stream().filter(n -> source(n) == null).count();
  }

  private Map.Entry<String, WeightImport> source(String name) {
    for (Map.Entry<String, WeightImport> e : imports.entrySet()) {
      String prefix = e.getKey();
      if (name.startsWith(prefix) && e.getValue().has(name.substring(prefix.length()))) {
        return e;
      }
    }
    return null;
  }

  /**
   * Writes the folder under a temporary name, has it checked, and renames it.
   *
   * @param folder must not be there yet, or be empty
   * @param seed of the parameters that no checkpoint has
   * @param check is given the folder under its temporary name; where it throws, nothing stays
   * @throws InputException when it cannot be written
   */
  public void write(Path folder, TextTokenizer tokenizer, long seed, Consumer<Path> check) {
    ModelFolder.checkVocabulary("tokenizer", config, tokenizer);
    Path target = folder.toAbsolutePath();
    Path partial = target.resolveSibling("." + target.getFileName() + ".partial");
    try {
      if (Files.exists(target) && !Files.isDirectory(target)
          || Files.isDirectory(target) && !empty(target)) {
        throw new InputException(folder + ": is there already; choose another folder");
      }
      Files.createDirectories(partial);
      Files.write(partial.resolve(ModelFolder.CONFIG), config.toJson());
      Files.write(partial.resolve(ModelFolder.TOKENIZER), tokenizer.toJson());
      Safetensors.write(
          partial.resolve(ModelFolder.WEIGHTS), tensors(seed), Map.of("format", "pt"));
      check.accept(partial);
      Files.deleteIfExists(target);
      Files.move(partial, target);
    } catch (IOException e) {
      throw new InputException(folder + ": cannot be written: " + Reason.of(e), e);
    } finally {
      remove(partial);
    }
  }

  private static boolean empty(Path folder) throws IOException {
    try (var files = Files.list(folder)) {
      return files.findAny().isEmpty();
    }
  }

  private static void remove(Path partial) {
    try {
      for (String name :
          new String[] {ModelFolder.CONFIG, ModelFolder.TOKENIZER, ModelFolder.WEIGHTS}) {
        Files.deleteIfExists(partial.resolve(name));
      }
      Files.deleteIfExists(partial);
    } catch (IOException e) {
      throw new InputException(partial + ": cannot be removed: " + Reason.of(e), e);
    }
  }

  /** Made one at a time, whenever the collection is walked. */
  private Collection<HostTensor> tensors(long seed) {
    return new AbstractCollection<>() {
      @Override
      public Iterator<HostTensor> iterator() {
        return wanted.entrySet().stream()
            .map(e -> tensor(e.getKey(), e.getValue(), seed))
            .iterator();
      }

      @Override
      public int size() {
        return wanted.size();
      }
    };
  }

  private HostTensor tensor(String name, Wanted w, long seed) {
    Map.Entry<String, WeightImport> source = source(name);
    return source == null
        ? HostTensor.ofFloats(
            name, w.shape, ParameterSource.Fresh.draw(seed, name, w.shape, w.init))
        : source.getValue().tensor(name.substring(source.getKey().length()), name);
  }
}
